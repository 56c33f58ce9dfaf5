"""What integration tests stand on: real daemons in namespaces, the stock client, and patience with a limit.

@pytest.mark.root
def test_something(cluster: Cluster) -> None:
    lxc(cluster.members[0], "launch", "busybox", "c1")
    eventually(lambda: running(cluster.members[1], "c1"), within=20)
"""

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from lxdpy.dev.api import Connection, Refused
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed

LXC = "/usr/bin/lxc"  # the stock client, Debian's lxd-client
STATES = Path("/var/lib")  # on a real disk, with paths short enough for unix sockets
PAUSE = 0.05  # seconds between looks
ANSWERS_WITHIN = 60.0  # seconds for one answer
T = TypeVar("T")


@contextmanager
def running(
    members: int = 3, gpus: int | str = 2, *, joined: bool = True, **environment: str
) -> Iterator[Cluster]:
    """A cluster of that many members with so many fake GPUs, or a profile's, each. All is taken away again.

    If the block fails, the end of each member's log is printed. `environment` is the daemons'. What was done
    through one member is known to the next one that is asked.
    """
    state = Path(tempfile.mkdtemp(prefix="lxdpy-test-", dir=STATES))
    state.chmod(0o711)  # containers' roots pass through, unprivileged as they are
    cluster = Cluster(state.name.removeprefix("lxdpy-"), state, members)
    cluster.in_turns()
    try:
        cluster.up(gpus, **environment)
        if joined:
            cluster.join()
        yield cluster
    except BaseException:
        for member in cluster.members:
            print(f"--- {member.name}\n{member.tail(60)}")
        raise
    finally:
        cluster.down()


class Done:
    """What a run of the client came to."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr


def lxc_try(member: Member, *words: str, stdin: str = "", timeout: float = 120) -> Done:
    """Run the stock client against the member's socket, with a configuration folder of the test's own."""
    member.take_turn()
    config = member.folder.parent / "lxc-config"
    config.mkdir(mode=0o700, exist_ok=True)
    process = subprocess.run(
        [LXC, *words], env=member.environment | {"LXD_CONF": str(config), "HOME": str(config)},
        input=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd="/",
    )  # fmt: skip
    return Done(process)


def lxc(member: Member, *words: str, stdin: str = "", timeout: float = 120) -> str:
    """The client's stdout. Raises Failed with its stderr."""
    done = lxc_try(member, *words, stdin=stdin, timeout=timeout)
    if done.status:
        raise Failed(f"lxc {' '.join(words)}: {done.err.strip() or done.out.strip()}")
    return done.out


def lxc_json(member: Member, *words: str) -> Any:
    return json.loads(lxc(member, *words, "--format=json"))


def metrics(member: Member, path: str = "/1.0/metrics") -> dict[str, Metric]:
    """What the member tells on its own socket, by family."""
    member.take_turn()
    connection = http.client.HTTPConnection("lxd")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(member.socket))
    connection.request("GET", path)
    reply = connection.getresponse()
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = reply.read().decode()
    connection.close()
    return {family.name: family for family in text_string_to_metric_families(text)}


def caught_up(member: Member) -> Member:
    """The member, once it knows all that any other was acknowledged: each has a view of its own."""
    with closing(Connection(member.socket, ANSWERS_WITHIN)) as link:
        link.request("GET", "/1.0", headers={"X-Lxdpy-Linearizable": "true"})
        reply = link.getresponse()
        said = reply.read().decode()
        assert reply.status == 200, said
    return member


def eventually(check: Callable[[], T], *, within: float) -> T:
    """The first answer of `check` that is true, or that does not raise if it gives None.

    After `within` seconds the last answer's failure is the test's.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            answer = check()
            if answer or answer is None:
                return answer
            failure: Exception = AssertionError(f"still {answer!r} after {within:g} s")
        except (AssertionError, Failed, Refused, OSError, LookupError) as found:
            failure = found
        if time.monotonic() > deadline:
            raise failure
        time.sleep(PAUSE)
