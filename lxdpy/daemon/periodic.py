"""What comes with time: scheduled snapshots, and the end of what has expired. Of what this member owns."""

import time
from typing import TYPE_CHECKING

from lxdpy.daemon.tasks import guarded
from lxdpy.resources.backups import actions as backups
from lxdpy.resources.images import remote as images
from lxdpy.resources.server.model import setting
from lxdpy.resources.snapshots import schedule as snapshots
from lxdpy.resources.volume_backups import actions as volume_backups
from lxdpy.resources.volume_snapshots import schedule as volume_snapshots

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

TICK = 1.0  # seconds between looks at the clock
HOUR = 3600.0  # seconds
PERIOD = 60.0  # seconds of the wall clock; schedules go by the minute


class Periodic:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._minute = 0.0
        self._snapshots = snapshots.Schedule(daemon)
        self._volume_snapshots = volume_snapshots.Schedule(daemon)
        self._refreshed = time.time()  # when the images were

    async def step(self) -> None:
        """Once in each minute, and not before this member knows what the cluster has agreed on."""
        minute = time.time() // PERIOD
        if minute == self._minute or not self._daemon.current:
            return
        self._minute = minute
        await guarded(self._snapshots.step(), "scheduled snapshots")
        await guarded(self._volume_snapshots.step(), "scheduled snapshots of volumes")
        await guarded(snapshots.expire(self._daemon), "expired snapshots")
        await guarded(volume_snapshots.expire(self._daemon), "expired snapshots of volumes")
        await guarded(backups.expire(self._daemon), "expired backups")
        await guarded(volume_backups.expire(self._daemon), "expired backups of volumes")
        if self._daemon.store.is_leader:
            await guarded(images.expire(self._daemon), "expired images")
        self._refresh_images()

    def _refresh_images(self) -> None:
        """Those of other servers, by the leader; beside what else is to be done, as it may take long."""
        hours = int(setting(self._daemon.state, "images.auto_update_interval", "6"))
        due = hours and time.time() >= self._refreshed + hours * HOUR
        if due and self._daemon.store.is_leader:
            self._refreshed = time.time()
            self._daemon.spawn(images.refresh_all(self._daemon), "refreshing images")
