"""A member that is cut off ends its containers with GPUs by itself, before others count them as ended.

A card can be used on its own member only, and what nobody else can have need not be fenced: so as a rule
(`gpu.fence_after` unset) the containers of a member that is cut off run on, and a training of three weeks
survives an hour without a network. But who takes a member out by force, and starts its work again elsewhere,
must know that the old one has ended: it may write to the same storage, or have the same address. With
`gpu.fence_after` they can: the member has a lease, which it renews by asking the leader; when that has run
out it kills what holds GPUs, and the leader, who heard of it less lately than that, has it removed only then.
A member that hears that it is being removed does so at once, and says so. What a member has ended because it
was cut off it starts again when that is over, as after a power cut: with GPUs that it is granted anew, in its
turn if it has `gpu.wait`; not with `boot.autostart=false`.

Leases are counted on each side's own clock, from before the question on the one, from the last word heard, or
from the beginning of its own lead, on the other; clocks need not agree, only go on at the same pace.
The lease binds members that have applied the setting: it ends nothing on one that is cut off already, nor
what a daemon has left running that was stopped or died.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error
from cluster.membership.model import MEMBERS
from cluster.raft.store import Applied
from cluster.state.txn import State
from lxdpy.daemon.tasks import guarded
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.server.model import setting
from lxdpy.resources.warnings.model import FENCED
from lxdpy.resources.warnings.raising import raise_warning
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

UNUSED = 5.0  # seconds between looks whether there is a lease at all
LEAVES = 1.0  # seconds between looks of a member that is being removed
RENEWALS = 4  # tries within one lease
LEAST = 0.1  # seconds for the last of them
DRIFT = 0.1  # of the lease, by which clocks may go at another pace
END_WITHIN = 15.0  # seconds for the containers to end once the lease has run out; a kill takes up to 10


def boottime() -> float:
    """Seconds, those in which the machine was suspended too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lease_of(state: State) -> float:
    """Seconds; 0: members have none."""
    return float(setting(state, "gpu.fence_after", "0") or 0)


def surely_over(lease: float) -> float:
    """Seconds of silence after which a member has ended what holds its GPUs."""
    return lease * (1 + DRIFT) + END_WITHIN


def uses_gpus(state: State, member: str) -> bool:
    """Whether instances of the member (id) may be using its GPUs: it has not said that they ended."""
    rows = (row for row in state.rows(INSTANCES).values() if row.location == member)
    return any(row.status in ("Running", "Frozen") and granted(row.config) for row in rows)


class Fence:
    """Watches the lease of this member. `clock` is seconds."""

    def __init__(self, daemon: "Daemon", clock: Callable[[], float] = boottime) -> None:
        self._daemon = daemon
        self._clock = clock
        self._renewed = clock()
        self._ended: set[str] = set()  # keys of instances whose end has not been told yet
        self._poked = asyncio.Event()
        daemon.store.watch(self._applied)

    def _applied(self, applied: Applied) -> None:
        if any(change.table in ("members", "settings") for change in applied.changes):
            self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._poked.clear()
            pause = await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poked.wait()

    async def step(self) -> float:
        """Renew the lease, or end what it was for; seconds until the next step."""
        lease = lease_of(self._daemon.state)
        if lease <= 0 or not self._daemon.clustered:
            self._renewed = self._clock()
            return UNUSED
        row = self._daemon.state.find(MEMBERS, self._daemon.member_id)
        if row is not None and row.status == "leaving":
            await self._end("it is being removed", again=False)
            return LEAVES
        await self._renew(lease)
        if (left := self._renewed + lease - self._clock()) <= 0:
            await self._end("it is cut off", again=True)
            return lease / RENEWALS
        return min(left, lease / RENEWALS)

    async def _renew(self, lease: float) -> None:
        """Who answers is the leader of a majority: what it knew when it was asked is what counts."""
        asked = self._clock()
        left = self._renewed + lease - asked
        try:
            within = lease / RENEWALS
            await self._daemon.store.read_index(timeout=min(within, max(left, LEAST)) if left > 0 else within)
        except Error as failure:
            log.debug("lease not renewed: %s", failure.message)
            return
        self._renewed = asked
        with contextlib.suppress(TimeoutError):  # the lease goes on meanwhile: the rest is told next time
            async with asyncio.timeout(lease / RENEWALS):
                for key in sorted(self._ended):
                    await guarded(self._tell(key), f"telling of the end of {key}")

    async def _end(self, why: str, *, again: bool) -> None:
        """All at once. What becomes of it is settled, and told, as soon as the others can be told; then it is
        started `again`. Whatever else fails, it is ended.
        """
        rows = [row for row in self._holders() if self._runs(row)]
        keys = {row.key for row in rows}
        self._daemon.fenced |= keys if again else set()
        for row in rows if again else ():
            await guarded(self._mark(row), f"noting that {row.key} is to run again")
        self._ended |= keys
        async with asyncio.TaskGroup() as tasks:
            for row in rows:
                log.warning("%s has GPUs, and is ended: of this member, %s", row.key, why)
                tasks.create_task(guarded(self._daemon.runtime.kill_container(row.volume), row.key))
        self._daemon.fenced -= {row.key for row in rows if self._runs(row)}

    async def _mark(self, row: Instance) -> None:
        """For another daemon. Whoever is at work on it just now may write over that: for ours there is
        `Daemon.fenced`.
        """
        if given := await records.load(self._daemon, row):
            await records.save(self._daemon, row, msgspec.structs.replace(given, fenced=True))

    def _holders(self) -> list[Instance]:
        state, me = self._daemon.state, self._daemon.member_id
        return [row for row in state.rows(INSTANCES).values() if row.location == me and granted(row.config)]

    def _runs(self, row: Instance) -> bool:
        return self._daemon.runtime.state(row.volume).status != "Stopped"

    async def _tell(self, key: str) -> None:
        row = self._daemon.state.find(INSTANCES, key)
        if row is not None:
            entity = url("instances", row.name, project=row.project)
            message = "The member was cut off for longer than gpu.fence_after"
            await raise_warning(self._daemon, FENCED, message, entity=entity)
        self._ended.discard(key)
