"""A proposal ends in one of three ways, and the store says in which: applied, surely not, unknown."""

import asyncio
from pathlib import Path

import pytest

from cluster.errors import Unavailable, Uncertain
from cluster.failpoints import inject
from tests.cluster.raft.group import group
from tests.cluster.raft.toy import Raise, value
from tests.patience import eventually


def test_who_stops_after_it_asked_does_not_know_what_became_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with group(tmp_path, "abc") as made:
            leader = await made.leader()
            other = next(store for store in made.stores if store is not leader)
            with inject("journal.sync", 0.3):
                asked = asyncio.ensure_future(other.propose(Raise("k")))
                await eventually(lambda: leader.status()["waiting"])
                other.drop(leader.member_id)  # the answer is lost
                await eventually(lambda: other._session is not None and not other._session.waiting)
                await other.stop()
                with pytest.raises(Uncertain):
                    await asked
            await eventually(lambda: value(leader.state, "k") == 1)

    asyncio.run(main())


def test_who_has_stopped_has_done_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with group(tmp_path, "a") as made:
            await made["a"].stop()
            with pytest.raises(Unavailable):
                await made["a"].propose(Raise("k"))

    asyncio.run(main())
