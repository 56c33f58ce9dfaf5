"""Scheduled snapshots of this member's instances, and those that have expired."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cluster.errors import Error
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import built
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.snapshots import actions
from lxdpy.resources.snapshots.commands import SetSlot
from lxdpy.resources.snapshots.draft import check_allowed, expiry, taken, unnamed
from lxdpy.resources.snapshots.model import SNAPSHOTS, Slot, Snapshot
from lxdpy.resources.snapshots.slots import AT_START, next_step, parts

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

SCHEDULE = "snapshots.schedule"
BREATH = 64  # instances looked at before others get their turn


class Schedule:
    """A slot whose snapshot fails is not tried again before the daemon starts anew: the next one is."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._failed: dict[str, Slot] = {}  # by instance
        self._looked = time.time()

    async def step(self) -> None:
        """Take what is due now. One after the other: nothing waits for it."""
        now = time.time()
        rows = [row for row in self._daemon.state.rows(INSTANCES).values() if self._is_mine(row)]
        for number, row in enumerate(rows):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            config = expanded(self._daemon.state, row)[0]
            if row.slot is not None or config.get(SCHEDULE):
                await self._attend(row, config, now)
        self._looked = now

    def _is_mine(self, row: Instance) -> bool:
        return row.location == self._daemon.member_id and row.status != "Creating" and row.move is None

    async def _attend(self, row: Instance, config: Config, now: float) -> None:
        always = is_on(config, "snapshots.schedule.stopped")
        since = 0.0 if always else row.last_used_at
        step = next_step(row.slot, config.get(SCHEDULE, ""), now, self._looked, since)
        if step is None:
            return
        if not step.take:
            await self._daemon.store.propose(SetSlot(row.key, self._daemon.member_id, step.slot))
        elif (always or row.status in ("Running", "Frozen")) and self._failed.get(row.key) != step.slot:
            await self._take(row, config, step.slot)

    async def _take(self, row: Instance, config: Config, slot: Slot | None) -> None:
        try:
            await take(self._daemon, row, config, slot)
        except Error as failure:
            log.warning("scheduled snapshot of %s: %s", row.key, failure.message)
            if slot is not None:
                self._failed[row.key] = slot


async def take(daemon: "Daemon", row: Instance, config: Config, slot: Slot | None = None) -> None:
    """One that is named and kept as the config says. Raises what kept it from being taken."""
    now = time.time()
    check_allowed(daemon.state, row.project)
    snapshot = taken(row, unnamed(daemon.state, row, config, now), now, expiry(config, now))
    await actions.create(daemon, row.key, snapshot, slot=slot)
    log.info("scheduled snapshot %s was taken", snapshot.key)


async def at_start(daemon: "Daemon", key: str) -> None:
    """Of an instance that is about to be started, if its schedule says so."""
    row = built(daemon, key)
    config = expanded(daemon.state, row)[0]
    stopped = row.status == daemon.runtime.state(row.volume).status == "Stopped"
    if stopped and AT_START in parts(config.get(SCHEDULE, "")):
        await take(daemon, row, config)


async def expire(daemon: "Daemon") -> None:
    """Remove those of this member whose time is over. Of what is being copied, later."""
    now = time.time()
    for row in [row for row in daemon.state.rows(SNAPSHOTS).values() if _is_over(row, now)]:
        instance = daemon.state.find(INSTANCES, f"{row.project}/{row.instance}")
        if instance is None or instance.location != daemon.member_id or instance.move is not None:
            continue
        try:
            await actions.delete(daemon, instance.key, row)
        except Error as later:
            log.info("expired snapshot %s stays for now: %s", row.key, later.message)
        else:
            log.info("expired snapshot %s was removed", row.key)


def _is_over(row: Snapshot, now: float) -> bool:
    return row.status == "Ready" and 0 < row.expires_at <= now
