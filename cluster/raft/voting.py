"""Who votes, and who leads: changed at the leader, one thing at a time."""

import asyncio
from typing import Literal

from cluster.errors import Invalid, Unavailable, Uncertain
from cluster.raft.asking import RETRY_EVERY, Deadline
from cluster.raft.session import Session


async def change(session: Session, verb: Literal["add", "rem"], member: str, timeout: float) -> None:
    """Give or take a vote. Idempotent. Raises Unavailable, Uncertain."""
    deadline = Deadline(timeout)
    session.running()
    while (member in session.view.voters) != (verb == "add"):
        if not session.view.is_leader:
            raise Unavailable("Only the leader changes the voters")
        reply = await session.attempt(
            lambda raft, answer: raft.node.change(verb, member, answer), deadline.left
        )
        if reply.index is not None:
            return
        if reply.taken:
            raise Uncertain(f"It is unknown whether {member} votes")
        if not deadline.allows_another:
            raise Unavailable(f"{member} is not ready, or another change is under way")
        await session.pause(RETRY_EVERY)


async def transfer(session: Session, to: str | None, timeout: float) -> None:
    """Let another voter lead: this one, or whoever has most of the log. Raises Unavailable, Invalid."""
    if to is not None and to not in session.view.voters:
        raise Invalid(f"{to} is not a voter")
    raft = session.running()
    raft.post(raft.pause, True)
    try:
        async with asyncio.timeout(timeout):
            while session.view.is_leader:
                raft.post(raft.node.hand_over, to)
                await session.pause(RETRY_EVERY)
    except TimeoutError:
        raise Unavailable("No voter took over the lead") from None
    finally:
        raft.post(raft.pause, False)
