"""What reaches a store that is not there yet: peers dial as soon as they know of it."""

import asyncio
import socket
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from tests.cluster.raft.group import Member
from tests.cluster.raft.toy import Raise


def test_a_store_that_is_starting_refuses_calls_and_connections(tmp_path: Path) -> None:
    """A peer's connection came between the thread's start and its first step, and ended the daemon."""

    async def test() -> None:
        member = Member(tmp_path, "a", dict)
        ours, theirs = socket.socketpair()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(member.start("a"))
            await asyncio.sleep(0)  # the thread runs, but this loop has not heard of it
            member.store.adopt(theirs)
            assert theirs.fileno() == -1, "closed: the peer dials again"
            member.store.cast({"kind": "beat"})
            with pytest.raises(Unavailable):
                await member.store.propose(Raise("k"))
            await (await starting).propose(Raise("k"))
        ours.close()
        await member.close()

    asyncio.run(test())
