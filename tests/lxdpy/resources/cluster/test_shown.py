import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from cluster.membership.heartbeat import Verdict
from cluster.membership.model import MEMBERS
from lxdpy.resources.cluster.shown import duration, health_of, wire
from tests.lxdpy.fakes import MEMBER_ID, local_daemon
from tests.lxdpy.resources.cluster.scene import OTHER, clustered


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.25, "0.25s"),
        (12.3456, "12.346s"),
        (60, "1m0s"),
        (75.5, "1m15.5s"),
        (3720, "1h2m0s"),
        (90061, "25h1m1s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("status", "verdict", "shown"),
    [
        ("ready", Verdict(True, 0.1), ("Online", "Fully operational")),
        ("ready", Verdict(False, 75.5), ("Offline", "No heartbeat for 1m15.5s (")),
        ("ready", Verdict(False, 3.0, known=False), ("Offline", "No heartbeat since this server")),
        ("evacuated", Verdict(False, 3.0), ("Evacuated", "Unavailable due to maintenance")),
        ("joining", Verdict(True, 0.0), ("Blocked", "Joining the cluster")),
        ("joining", Verdict(False, 3.0), ("Offline", "No heartbeat for 3s (")),
        ("leaving", Verdict(True, 0.0), ("Blocked", "Leaving the cluster")),
    ],
)  # fmt: skip
def test_a_members_health(tmp_path: Path, status: str, verdict: Verdict, shown: tuple[str, str]) -> None:
    async def main() -> None:
        store = clustered()
        row = msgspec.structs.replace(store.state.get(MEMBERS, OTHER), status=status)
        store.put(MEMBERS, OTHER, row)
        daemon = local_daemon(tmp_path, store, beat=SimpleNamespace(verdict=lambda _: verdict))
        found = health_of(daemon, row)
        assert found[0] == shown[0]
        assert found[1].startswith(shown[1])

    asyncio.run(main())


def test_roles_are_those_of_raft_and_those_given(tmp_path: Path) -> None:
    async def main() -> None:
        store = clustered()
        row = msgspec.structs.replace(store.state.get(MEMBERS, OTHER), roles=("event-hub",))
        store.put(MEMBERS, OTHER, row)
        online = SimpleNamespace(verdict=lambda _: Verdict(True, 0.0))
        daemon = local_daemon(tmp_path, store, beat=online)
        own = store.state.get(MEMBERS, MEMBER_ID)
        assert wire(daemon, own)["roles"] == ["database-leader", "database"]
        shown = wire(daemon, row)
        assert (shown["roles"], shown["database"]) == (["database-standby", "event-hub"], True)
        store.voters = frozenset((MEMBER_ID, OTHER, "third"))
        assert wire(daemon, row)["roles"] == ["database", "event-hub"]

    asyncio.run(main())
