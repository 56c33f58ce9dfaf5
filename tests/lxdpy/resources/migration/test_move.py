"""What a member does while another one fetches an instance of its own."""

import asyncio
from pathlib import Path

import pytest

from cluster.membership.heartbeat import Verdict
from cluster.membership.model import MEMBERS, Member
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.model import INSTANCES, Instance, Move
from lxdpy.resources.migration import move
from lxdpy.resources.migration.model import RESIDUES, Residue
from lxdpy.resources.snapshots.readers import used
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.instances.scene import FakeVolumes, house, ready_store
from tests.patience import eventually

OTHER = "ba9876543210"
HERE, LATE, LOST = Verdict(True, 0.1), Verdict(False, 2.0), Verdict(False, 10.0)


class Ear:
    """What is heard of the other member, look after look."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)

    def verdict(self, member: str) -> Verdict:
        assert member == OTHER
        return self.verdicts.pop(0)


def test_a_move_is_given_up_when_the_other_member_is_lost_and_not_when_it_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "LOOK_EVERY", 0.0)
    store = LocalStore()
    store.put(MEMBERS, OTHER, Member(OTHER, "n2", status="ready"))
    going = Instance("default", "c1", "u1", MEMBER_ID, status="Stopped", move=Move("op1", OTHER, "p1"))
    store.put(INSTANCES, going.key, going)
    ear = Ear(HERE, LATE, HERE, LATE, LOST)

    async def story() -> None:
        await move.drive(local_daemon(tmp_path, store, beat=ear), going.key)

    asyncio.run(story())
    row = store.state.get(INSTANCES, going.key)
    assert (ear.verdicts, row.move, row.stayed) == ([], None, "Member n2 went offline")


def test_what_a_move_left_goes_once_nobody_copies_a_snapshot_of_it(tmp_path: Path) -> None:
    store, residue = ready_store(), Residue(MEMBER_ID, "default", "default/c1")
    store.put(RESIDUES, residue.key, residue)

    class Left(FakeVolumes):
        async def volumes(self) -> list[Volume]:
            return [Volume("c1"), Volume("c1", snapshot="id0"), Volume("c10", snapshot="id1")]

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon, left = house(tmp_path, store, tasks), Left(tmp_path)
            daemon.pools.driver = lambda _: left  # type: ignore[method-assign,assignment,return-value]
            await left.create(Volume("c1"))
            with used(daemon, "id1"):  # another's
                with used(daemon, "id0"):
                    clearing = asyncio.create_task(move.clear(daemon, residue.key))
                    await eventually(lambda: "id0" in daemon.let_go)
                    assert left.path(Volume("c1")).exists()
                await clearing
            assert not left.path(Volume("c1")).exists()
            assert not store.state.rows(RESIDUES)

    asyncio.run(story())
