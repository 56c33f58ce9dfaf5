"""What a member does while another one fetches an instance of its own."""

import asyncio
from pathlib import Path

import pytest

from cluster.membership.heartbeat import Verdict
from cluster.membership.model import MEMBERS, Member
from lxdpy.resources.instances.model import INSTANCES, Instance, Move
from lxdpy.resources.migration import move
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon

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
