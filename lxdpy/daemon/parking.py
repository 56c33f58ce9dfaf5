"""Parks by itself: the instances of this member whose lease has run out, and those whose cards are idle."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lxdpy.config.instance import INSTANCE
from lxdpy.daemon.tasks import guarded
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.resources.gpus.commands import granted, grants_held
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, LEASED, PARKED, WARNED, Instance
from lxdpy.resources.parking.actions import park
from lxdpy.resources.parking.commands import WarnOfLease, Why
from lxdpy.resources.wire import rfc3339

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0  # seconds
WARN_BEFORE = 600.0  # seconds before a lease ends, and at most a tenth of it
WARN_AT_LEAST = 2 * LOOK_EVERY  # seconds, of a short one; else a look might come too late


class Idleness:
    """For how long each card of this host has done nothing, as far as anybody looked.

    A card that does not tell how busy it is counts as busy; so does one in MIG mode.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def look(self, cards: Iterable[Gpu]) -> None:
        now = self._clock()
        idle = [gpu.uuid for gpu in cards if gpu.figures.busy == 0 and not gpu.processes]
        self._since = {uuid: self._since.get(uuid, now) for uuid in idle}

    def of(self, uuids: Iterable[str]) -> float:
        """Seconds for which all of them have been idle; 0 if one is not."""
        now = self._clock()
        return min((now - self._since.get(uuid, now) for uuid in uuids), default=0.0)


class Parking:
    """`step` is done every LOOK_EVERY seconds."""

    def __init__(self, daemon: "Daemon", idleness: Idleness) -> None:
        self._daemon = daemon
        self._idleness = idleness

    async def step(self) -> None:
        for key in [row.key for row in self._daemon.state.rows(INSTANCES).values() if self._is_ours(row)]:
            await guarded(self._look(key), f"parking {key}")

    def _is_ours(self, row: Instance) -> bool:
        """Whether it runs here with GPUs."""
        return (
            row.location == self._daemon.member_id and row.status == "Running" and bool(granted(row.config))
        )

    async def _look(self, key: str) -> None:
        """At the row as it is by now: those before may have taken long to give theirs back."""
        row = self._daemon.state.find(INSTANCES, key)
        if row is None or not self._is_ours(row):
            return
        ends_at, warn_at = self._lease(row)
        if ends_at and time.time() >= warn_at and WARNED not in row.config:
            await self._daemon.store.propose(WarnOfLease(row.key, self._daemon.member_id, ends_at))
            content = {"action": "lease-ending", "ends_at": rfc3339(ends_at)}
            self._daemon.guests.tell(row, "gpu", content)
        if why := self._due(row):
            await park(self._daemon, row.key, why, force=True, still=self._is_still_due)

    def _due(self, row: Instance) -> Why | None:
        """Why its GPUs are to be given back now."""
        ends_at, now = self._lease(row)[0], time.time()
        if ends_at and now >= ends_at:
            return "lease"
        config = expanded(self._daemon.state, row)[0]
        return "idle" if is_idle(config, row, self._idleness, held_for=now - self._since(row)) else None

    def _is_still_due(self, row: Instance) -> bool:
        """Once nobody else is at work on it: it may have been renewed meanwhile."""
        if why := self._due(row):
            how = "idle" if why == "idle" else "its lease has ended"
            log.info("%s: its GPUs are given back: %s", row.key, how)
        return why is not None

    def _lease(self, row: Instance) -> tuple[float, float]:
        return lease_of(row, expanded(self._daemon.state, row)[0], self._since(row))

    def _since(self, row: Instance) -> float:
        """When it got the last of its GPUs, unix seconds."""
        state = self._daemon.state
        held = {grant.uuid for grant in grants_held(state, row.key, row.config)}
        holders = (holder for uuid in held for holder in state.get(GPUS, uuid).holders)
        return max((holder.since for holder in holders if holder.instance == row.key), default=0.0)


def lease_of(row: Instance, config: Mapping[str, str], since: float) -> tuple[float, float]:
    """When its lease ends, and when to warn of that, unix seconds; 0, 0 if it has none, or is parked."""
    lease = INSTANCE.parsed(dict(config), "gpu.lease")
    if not isinstance(lease, float) or lease <= 0 or PARKED in row.config:
        return 0.0, 0.0
    ends_at = max(since, float(row.config.get(LEASED, "0"))) + lease
    return ends_at, ends_at - min(WARN_BEFORE, max(lease / 10, WARN_AT_LEAST))


def is_idle(config: Mapping[str, str], row: Instance, idleness: Idleness, held_for: float) -> bool:
    """Whether all its cards have been idle for as long as `gpu.idle` says.

    What they did before they were its own does not count: it has them for `held_for` seconds.
    """
    limit = INSTANCE.parsed(dict(config), "gpu.idle")
    if not isinstance(limit, float) or limit <= 0:
        return False
    uuids = [uuid for held in granted(row.config).values() for uuid in held]
    return min(idleness.of(uuids), held_for) >= limit
