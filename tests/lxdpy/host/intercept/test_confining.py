import ctypes
import errno
import os

import pytest

from lxdpy.host.intercept.confining import Confinement, rules
from lxdpy.host.lxc.seccomp import policy

ALLOW, KILL, ERRNO = 0x7FFF0000, 0, 0x50000


def shown(text: str) -> list[tuple[str, int, list[tuple[int, int, int, int]]]]:
    return [
        (call, action, [(one.argument, one.operation, one.first, one.second) for one in conditions])
        for call, action, conditions in rules(text)[1]
    ]


def test_a_usual_policy_is_read_without_what_it_passes_on() -> None:
    found = policy(deny="keyctl\nptrace errno 22 [0,7,SCMP_CMP_NE]", intercept=("mknod", "sysinfo"))
    assert rules(found)[0] == ALLOW
    assert shown(found)[:2] == [("umount2", ERRNO | 13, [(1, 7, 1, 1)]), ("kexec_load", ERRNO | 38, [])]
    assert shown(found)[-2:] == [("keyctl", ERRNO | 38, []), ("ptrace", ERRNO | 22, [(0, 1, 7, 0)])]
    assert not {"mknod", "sysinfo", "seccomp"} & {call for call, _, _ in shown(found)}


def test_what_is_not_on_an_allow_list_kills_and_what_has_no_word_is_as_the_list_says() -> None:
    assert rules("2\nallowlist\n[all]\nread\n# more\nwrite errno 1\n")[0] == KILL
    assert shown("2\nwhitelist\nread\nwrite errno 1\n") == [("read", ALLOW, []), ("write", ERRNO | 1, [])]
    assert shown("2\nblacklist\nread\nwrite trap\n") == [("read", KILL, []), ("write", 0x30000, [])]


@pytest.mark.parametrize(
    "wrong",
    [
        "1\n1\n2\n",
        "2\n",
        "2\ndenylist errno 1\n",
        "2\ndenylist\n[x86]\nread",
        "2\ndenylist\nread log\n",
        "2\ndenylist\nread errno 1 [0,1,SCMP_CMP_SOMEHOW]\n",
        "2\ndenylist\nread errno 1 [0,1]\n",
        "2\ndenylist\nread errno -1\n",
    ],
)
def test_a_policy_that_is_not_understood_lets_nothing_start(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the line is all it says
        rules(wrong)
    with pytest.raises(PermissionError):
        Confinement(wrong)


def test_it_holds_in_a_process_that_has_put_it_on() -> None:
    child = os.fork()
    if child == 0:
        status = 99
        try:
            confinement = Confinement("2\ndenylist\n[all]\nmkdir errno 17\nmkdirat errno 17\nno_such_call\n")
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # as we are not root here
            confinement.put_on()
            os.mkdir("/nowhere/at/all")
        except OSError as error:
            status = error.errno or 98
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EEXIST
