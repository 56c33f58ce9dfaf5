"""What a container leaves when it has ended, and what there is of an instance: taken away.

All of it may be done again after a crash in the middle.
"""

import logging
from typing import TYPE_CHECKING

from cluster import failpoints
from cluster.errors import Error, NotFound
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.instances import devices as device_actions
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances import interception, net_priority
from lxdpy.resources.instances.commands import LAST_POWER, RENAMED_FROM, DeleteInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import report, volume_of
from lxdpy.resources.instances.ready import READY

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


async def ended(daemon: "Daemon", key: str, *, killed: bool = False, again: bool = False) -> None:
    """Its container has ended: take down what is left, tell the cluster; an ephemeral instance that ran goes.

    The caller holds the lock. `again`: note that it is to be started again.
    """
    row = daemon.state.find(INSTANCES, key)
    if row is None or daemon.runtime.state(row.volume).status != "Stopped":
        return
    spent = row.ephemeral and row.status not in ("Stopped", "Creating")
    if spent:
        await records.mark_deleted(daemon, row)  # nobody would know any more that it ran
    await stopped(daemon, row, killed=killed, again=again)
    if spent:
        await remove(daemon, row)


async def stopped(daemon: "Daemon", row: Instance, *, killed: bool = False, again: bool = False) -> None:
    """`ended`, but an ephemeral instance stays; `again`: note that it is to be started again."""
    await take_down(daemon, row)
    if row.status not in ("Stopped", "Creating") or granted(row.config):
        notes = {LAST_POWER: "RUNNING" if again else "STOPPED"}
        notes |= {name: "" for name in row.config if name.endswith(".host_name")} | {READY: ""}
        await report(daemon, row, "Stopped", notes, killed=killed)
    await records.drop(daemon, row)


async def take_down(daemon: "Daemon", row: Instance) -> None:
    """Stop its devices and unmount its disk. What fails is logged: what has stopped must not seem to run."""
    daemon.device_watch.watch(row.key, ())
    given = await records.load(daemon, row)
    config, devices = records.has(row, given) if given else expanded(daemon.state, row)
    for failure in await device_actions.stop(daemon, row, config, devices):
        log.warning("stopping a device of %s: %s", row.key, failure.message)
    if net_priority.priority_of(config):
        await net_priority.remove(row)
    await daemon.files.end(row.volume)
    await daemon.guests.close(row.volume)
    await interception.close(daemon, row)
    try:
        await daemon.pools.driver(row.pool).unmount(volume_of(row))
    except Error as failure:
        log.warning("unmounting %s: %s", row.key, failure.message)
    await failpoints.reach("instance.taken-down")


async def remove(daemon: "Daemon", row: Instance) -> None:
    """Take it from disk, then from the cluster. A crash in between leaves a mark that `settle` goes by; one
    that could not be begun leaves none, as it may be started again.
    """
    begun = await records.is_marked(daemon, row)
    await records.mark_deleted(daemon, row)
    try:
        await take_down(daemon, row)
        await device_actions.forget(daemon, row, expanded(daemon.state, row)[1])
        await daemon.pools.driver(row.pool).unmount(volume_of(row))
    except Error:
        if not begun:
            await records.unmark(daemon, row)
        raise
    await remove_disk(daemon, row)
    await failpoints.reach("instance.removed")
    try:
        await daemon.store.propose(DeleteInstance(row.key, row.uuid))
    except NotFound:
        log.debug("%s is gone already", row.key)
    await records.drop(daemon, row)
    await records.unmark(daemon, row)


async def remove_disk(daemon: "Daemon", row: Instance) -> None:
    """Volume and logs. Raises Unavailable if its pool is not open."""
    driver = daemon.pools.driver(row.pool)
    await driver.delete(volume_of(row))
    if before := row.config.get(RENAMED_FROM):
        await driver.delete(Volume(before))
    daemon.forget_files(row.volume)
