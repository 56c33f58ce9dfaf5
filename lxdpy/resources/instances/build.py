"""The owner's part of a create: image, volume, then "Stopped". What fails takes the whole instance back."""

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from cluster import failpoints
from cluster.errors import Error, NotFound, Unavailable
from cluster.state.command import CALLER
from lxdpy.host.idmap import dump
from lxdpy.host.storage.driver import Volume
from lxdpy.host.undo import Undo
from lxdpy.resources.backups import restore
from lxdpy.resources.images.actions import ensure_here, retained
from lxdpy.resources.instances import teardown
from lxdpy.resources.instances.commands import DeleteInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.image import with_image
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import present, report, volume_of
from lxdpy.resources.instances.spec import idmap_of
from lxdpy.resources.migration.copy import copy
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.recovery.writing import is_anothers, refuse_anothers
from lxdpy.resources.remotes import arrivals

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

AGAIN = 5.0  # seconds until the cluster is told again that an instance could not be built


async def build(daemon: "Daemon", key: str, operation: Operation) -> None:
    """Idempotent: after a crash it is done again, over what there is."""
    async with daemon.lock(f"instance {key}"):
        row = present(daemon, key)
        if row.status != "Creating" or row.operation != operation.id:
            return
        CALLER.set(row.created_by or None)
        async with Undo() as undo:
            undo.push(withdraw, daemon, row)
            await _build(daemon, row, operation)


async def _build(daemon: "Daemon", row: Instance, operation: Operation) -> None:
    await failpoints.reach("instance.build")
    await refuse_anothers(daemon, row)
    config, devices = expanded(daemon.state, row)
    driver, volume = daemon.pools.driver(row.pool), volume_of(row, devices)
    if driver.path(volume).exists():
        await driver.delete(volume)  # what a crash left
    if row.source.type == "image":
        await _of_image(daemon, await with_image(daemon, row, operation), volume, operation)
    elif row.source.type == "copy":
        await copy(daemon, row, volume)
    elif row.source.type == "backup":
        await restore.build(daemon, row, volume)
    elif row.source.type == "migration":
        await arrivals.build(daemon, row, volume, operation)
    else:
        await driver.create(volume)
    await failpoints.reach("instance.built")
    mapped = dump(idmap_of(row, config))
    notes = {
        "volatile.idmap.base": "0",
        "volatile.idmap.current": mapped,
        "volatile.idmap.next": mapped,
        "volatile.last_state.idmap": "[]",
    }
    await report(daemon, row, "Stopped", notes)
    restore.forget(daemon, row)


async def _of_image(daemon: "Daemon", row: Instance, volume: Volume, operation: Operation) -> None:
    """Though the image be deleted meanwhile, once it is here."""
    driver, image = daemon.pools.driver(row.pool), row.source.fingerprint
    tell = partial(unpacked, operation)
    async with retained(daemon, image):
        await ensure_here(daemon, row.project, image, operation)
        await failpoints.reach("instance.image")
        await driver.ensure_image(image, lambda into: daemon.images.unpack(image, into, tell))
        await driver.create_from_image(volume, image)


def unpacked(operation: Operation, far: str) -> None:
    """Tell whoever waits, in LXD's words."""
    operation.progress(create_instance_from_image_unpack_progress=f"Unpack: {far}")


async def withdraw(daemon: "Daemon", row: Instance) -> None:
    """End the reservation of what could not be built. A daemon that stops leaves it to the next."""
    if daemon.stopping.is_set():
        return
    try:
        with contextlib.suppress(NotFound, Unavailable):  # nothing is made in a pool that is not open
            if not await is_anothers(daemon, row):
                await teardown.remove_disk(daemon, row)
        await daemon.store.propose(DeleteInstance(row.key, row.uuid))
        restore.forget(daemon, row)
    except NotFound:
        log.debug("%s is gone already", row.key)
    except Error as failure:
        log.error("%s could not be withdrawn yet: %s", row.key, failure.message)
        daemon.spawn(_withdraw_later(daemon, row), f"withdraw {row.key}")


async def _withdraw_later(daemon: "Daemon", row: Instance) -> None:
    await asyncio.sleep(AGAIN)
    async with daemon.lock(f"instance {row.key}"):
        now = daemon.state.find(INSTANCES, row.key)
        if now is not None and now.uuid == row.uuid and now.status == "Creating":
            await withdraw(daemon, now)
