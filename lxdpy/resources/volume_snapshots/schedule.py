"""Scheduled snapshots of this member's custom volumes, and those that have expired."""

import logging
import time
from typing import TYPE_CHECKING

from cluster.errors import Error
from lxdpy.resources.snapshots.draft import check_allowed
from lxdpy.resources.snapshots.model import Slot
from lxdpy.resources.snapshots.slots import next_step
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume
from lxdpy.resources.volume_snapshots import actions
from lxdpy.resources.volume_snapshots.commands import SetVolumeSlot
from lxdpy.resources.volume_snapshots.draft import taken
from lxdpy.resources.volume_snapshots.model import ready

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


class Schedule:
    """As of instances (`snapshots.schedule`); a volume is in use at any time."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._failed: dict[str, Slot] = {}  # by volume
        self._looked = time.time()

    async def step(self) -> None:
        """Take what is due now."""
        now = time.time()
        for row in _mine(self._daemon):
            step = next_step(row.slot, row.config.get("snapshots.schedule", ""), now, self._looked)
            if step is None:
                continue
            if not step.take:
                await self._daemon.store.propose(SetVolumeSlot(row.id, step.slot))
            elif self._failed.get(row.id) != step.slot:
                await self._take(row, step.slot)
        self._looked = now

    async def _take(self, row: StorageVolume, slot: Slot | None) -> None:
        try:
            check_allowed(self._daemon.state, row.project)
            await actions.create(self._daemon, row.id, taken(self._daemon.state, row), slot=slot)
        except Error as failure:
            log.warning("scheduled snapshot of volume %s: %s", row.name, failure.message)
            if slot is not None:
                self._failed[row.id] = slot
        else:
            log.info("scheduled snapshot of volume %s was taken", row.name)


async def expire(daemon: "Daemon") -> None:
    """Remove those of this member whose time is over. Of what is being copied, later."""
    now = time.time()
    for row in _mine(daemon):
        for one in ready(row):
            if 0 < one.expires_at <= now and not daemon.in_use[one.id]:
                try:
                    await actions.delete(daemon, row.id, one.id)
                except Error as later:
                    log.info("expired snapshot %s/%s stays: %s", row.name, one.name, later.message)
                else:
                    log.info("expired snapshot %s/%s was removed", row.name, one.name)


def _mine(daemon: "Daemon") -> list[StorageVolume]:
    rows = daemon.state.rows(VOLUMES).values()
    return [row for row in rows if row.location == daemon.member_id and row.status == "Ready"]
