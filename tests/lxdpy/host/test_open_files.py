import os
from pathlib import Path

from lxdpy.host.open_files import users

PROC = Path("/proc")
FULL, RANDOM = (1, 7), (1, 8)


def test_who_has_a_device_open_is_found_until_it_is_closed() -> None:
    me = os.getpid()
    assert users(PROC, [me], {FULL}) == {}
    with Path("/dev/full").open("rb"):
        found = users(PROC, [me, 2**22 + 1], {FULL, RANDOM})
        assert found == {me: (PROC / str(me) / "comm").read_text().strip()}
        assert users(PROC, [me], {RANDOM}) == {}
        assert users(PROC, [], {FULL}) == {}
    assert users(PROC, [me], {FULL}) == {}
