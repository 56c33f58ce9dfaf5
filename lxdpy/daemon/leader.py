"""The leader's duties: who votes, who is removed, what has expired. Every member runs this; one of them acts.

All of it is read from the state and from who is alive, again and again: what a leader leaves unfinished the
next one finds.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.errors import Unavailable, Uncertain
from cluster.membership.commands import ExpireTokens
from cluster.membership.features import RaiseLevel, common, level_of
from cluster.membership.model import TOKENS, Member, members
from cluster.raft.store import Applied
from lxdpy.daemon.fence import boottime, lease_of, surely_over, uses_gpus
from lxdpy.daemon.tasks import guarded
from lxdpy.resources.cluster.commands import LeaveMember, RemoveMember
from lxdpy.resources.cluster.roles import wanted_roles
from lxdpy.resources.gpu_queue.actions import GpuQueue

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5  # seconds; and whenever members, links or the leader change
CHANGE_WITHIN = 3.0  # seconds for one change of the voters; then the others are looked at again
POKED_BY = frozenset({"members", "settings", "gpus", "gpu_queue", "projects"})  # tables with work for it
JOIN_WITHIN = 120.0  # seconds a joining member may be silent


class Leader:
    def __init__(self, daemon: "Daemon", clock: Callable[[], float] = boottime) -> None:
        self._daemon = daemon
        self._clock = clock
        self._poked = asyncio.Event()
        self._queue = GpuQueue(daemon)
        daemon.store.watch(self._applied)
        daemon.store.on_link(lambda *_: self._poked.set())
        daemon.store.on_leader(self._elected)
        self._leads_since = self._clock()

    def _elected(self, _: str | None) -> None:
        self._leads_since = self._clock()
        self._poked.set()

    def _applied(self, applied: Applied) -> None:
        if any(change.table in POKED_BY for change in applied.changes):
            self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._poked.clear()
            await guarded(self.step(), "leader's duties")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._poked.wait()

    async def step(self) -> None:
        for duty in (
            self._follow,
            self._assign,
            self._remove,
            self._expire,
            self._raise_level,
            self._queue.step,
        ):
            if self._daemon.store.is_leader:
                try:
                    await duty()
                except (Unavailable, Uncertain) as later:
                    log.info("another time: %s", later.message)

    async def _follow(self) -> None:
        """All members get the log, whether they vote or not."""
        self._daemon.store.set_learners([row.id for row in members(self._daemon.state)])

    async def _assign(self) -> None:
        """One change of the voters at a time, as Raft demands; first a vote more, then one fewer."""
        store = self._daemon.store
        wanted = wanted_roles(self._daemon).voters
        missing, surplus = sorted(wanted - store.voters), store.voters - wanted
        if not wanted:
            return  # a log that has only just begun
        if missing:
            log.info("member %s becomes a voter", missing[0])
            await store.add_voter(missing[0], timeout=CHANGE_WITHIN)
        elif surplus == {store.member_id}:
            log.info("this member hands on the lead, as it is to vote no more")
            await store.transfer(timeout=CHANGE_WITHIN)
        elif surplus:
            # Who leaves goes first: were it cut off a moment later, its vote would be needed and missing.
            stays = {row.id for row in members(self._daemon.state) if row.status != "leaving"}
            others = surplus - {store.member_id}
            gone = min(others, key=lambda m: (m in stays, self._daemon.beat.online(m), m))
            log.info("member %s stops being a voter", gone)
            await store.remove_voter(gone, timeout=CHANGE_WITHIN)

    async def _remove(self) -> None:
        """Members that leave go once they have no vote; members that joined and fell silent leave."""
        store = self._daemon.store
        for row in members(self._daemon.state):
            if row.status == "leaving" and row.id not in store.voters and not self._may_run_on(row):
                await store.propose(RemoveMember(row.id))
            elif row.status == "joining" and self._silence(row) > JOIN_WITHIN:
                log.warning("member %s did not become ready: it is removed", row.name)
                await store.propose(LeaveMember(row.id, forced=True))

    def _may_run_on(self, row: Member) -> bool:
        """Whether it may not have ended yet what it is to end before it is removed. It does so, and says so,
        as soon as it knows that it leaves, or when it has been cut off for long enough.

        What another leader has heard is not known here: so it counts from the election, if that is later.
        """
        lease, state = lease_of(self._daemon.state), self._daemon.state
        verdict = self._daemon.beat.verdict(row.id)
        if lease <= 0 or not uses_gpus(state, row.id):
            return False
        return verdict.online or min(verdict.silence, self._clock() - self._leads_since) <= surely_over(lease)

    def _silence(self, row: Member) -> float:
        verdict = self._daemon.beat.verdict(row.id)
        return 0.0 if verdict.online else verdict.silence

    async def _expire(self) -> None:
        tokens = self._daemon.state.rows(TOKENS).values()
        if any(0 < row.expires_at <= time.time() for row in tokens):
            await self._daemon.store.propose(ExpireTokens())

    async def _raise_level(self) -> None:
        state = self._daemon.state
        level = common(members(state))
        if level > level_of(state):
            log.info("all members have been updated: feature level %d", level)
            await self._daemon.store.propose(RaiseLevel(level))
