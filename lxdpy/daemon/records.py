"""Records of instances and custom volumes kept up to date: by these they are recovered without a database.

Never in anybody's way: what changed is written a while later, however often it changed meanwhile, one after
the other, and what somebody has in hands just then waits for the next round.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.state.txn import Change
from lxdpy.daemon.tasks import guarded
from lxdpy.resources.instances.commands import RENAMED_FROM
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.projects.model import home
from lxdpy.resources.recovery import writing
from lxdpy.resources.recovery.plan import is_kept
from lxdpy.resources.recovery.writing import Row
from lxdpy.resources.storage_volumes.model import VOLUMES

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

AFTER = 1.0  # seconds from a change to its record: a create makes several
FLUSH_WITHIN = 2.0  # seconds
SPACING = 0.05  # seconds between two records, each of which takes 1 ms of processor: many launches go first


class Records:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._due: dict[tuple[str, str], None] = {}  # table and key; in the order they came
        self._busy = False

    def changed(self, change: Change) -> None:
        """Whatever it was: note whose records have to say something else now."""
        row = change.after if change.after is not None else change.before
        match change.table:
            case "instances" if change.after is not None:
                if row.location == self._daemon.member_id and telling(change.before) != telling(row):
                    self.poke(change.table, change.key)
            case "storage_volumes" if change.after is not None:
                if row.location == self._daemon.member_id:
                    self.poke(change.table, change.key)
            case "snapshots":
                self.poke("instances", f"{row.project}/{row.instance}")
            case "profiles" if change.before is not None and change.after is not None:
                self._users(lambda one: row.name in one.profiles and self._sees(one.project, row.project))
            case "storage_pools" if change.before is not None and change.after is not None:
                if (row.config, row.description) != (change.before.config, change.before.description):
                    self._users(lambda one: one.pool == row.name)

    def _sees(self, project: str, profiles: str) -> bool:
        return home(self._daemon.state, project, "profiles") == profiles

    def all(self) -> None:
        """After a start: a crash may have kept the last changes from being written."""
        self._users(lambda _: True)
        for id in self._daemon.state.rows(VOLUMES):
            self.poke("storage_volumes", id)

    def _users(self, concerns: Callable[[Instance], bool]) -> None:
        for row in self._daemon.state.rows(INSTANCES).values():
            if row.location == self._daemon.member_id and concerns(row):
                self.poke("instances", row.key)

    def poke(self, table: str, key: str) -> None:
        self._due[table, key] = None
        if not self._busy:
            self._busy = True
            self._daemon.spawn(self._rounds(), "records")

    async def _rounds(self) -> None:
        try:
            while self._due:
                await asyncio.sleep(AFTER)
                await self._round(SPACING)
        finally:
            self._busy = False

    async def _round(self, spacing: float) -> None:
        due, self._due = self._due, {}
        for table, key in due:
            await guarded(self._one(table, key), f"record of {key}")
            await asyncio.sleep(spacing)

    async def _one(self, table: str, key: str) -> None:
        daemon = self._daemon
        name, find = {
            "instances": (f"instance {key}", writing.instance_to_tell),
            "storage_volumes": (f"storage volume {key}", writing.volume_to_tell),
        }[table]
        if find(daemon, key) is None:
            return
        lock = daemon.lock(name)
        if lock.locked():
            self._due[table, key] = None
            return
        async with lock:
            row: Row | None = find(daemon, key)
            if row is not None:
                await writing.write(daemon, row)

    async def flush(self) -> None:
        """Write what is due, once; before the daemon ends. The next one makes up for what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN):
                await self._round(0)


def telling(row: Instance | None) -> object:
    """What a record is written anew for. Starts and stops are not: they would pay for it; what they change
    comes along with the next.
    """
    if row is None:
        return None
    config = {key: value for key, value in row.config.items() if is_kept(key)}
    absent = row.status == "Creating" or row.move is not None or RENAMED_FROM in row.config
    kept = (row.devices, row.profiles, row.description, row.ephemeral, row.pool, row.location)
    return config, *kept, row.restored_at, absent
