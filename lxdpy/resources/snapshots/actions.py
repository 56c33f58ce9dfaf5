"""The owner's part of snapshots: making, deleting, bringing an instance back, and tidying after a crash."""

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Conflict, Invalid, NotFound
from cluster.state.txn import Draft, Txn
from lxdpy.host.storage.driver import Volume
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import grants_held
from lxdpy.resources.instances import change, teardown
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import built, note, present, volume_of
from lxdpy.resources.instances.power import start_container
from lxdpy.resources.instances.quiet import quiet
from lxdpy.resources.snapshots.commands import (
    RESTORING,
    CreateSnapshot,
    DeleteSnapshot,
    FinishSnapshot,
    RemoveSnapshot,
    RestoreInstance,
)
from lxdpy.resources.snapshots.model import SNAPSHOTS, Slot, Snapshot, all_of
from lxdpy.resources.snapshots.readers import going

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


def volume(row: Instance, snapshot: Snapshot) -> Volume:
    return Volume(row.volume, snapshot=snapshot.id)


async def create(
    daemon: "Daemon", key: str, snapshot: Snapshot, *, hidden: bool = False, slot: Slot | None = None
) -> None:
    """Take it now. Raises AlreadyExists, Exhausted; then nothing is left. `slot`: settled by it.

    A hidden one is there for whoever has it in use, and then for `discard`.
    """
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        await daemon.store.propose(CreateSnapshot(snapshot, daemon.member_id))
        async with Undo() as undo:
            undo.push(_delete, daemon, row, snapshot)
            await failpoints.reach("snapshot.create")
            async with quiet(daemon, row):
                await daemon.pools.driver(row.pool).snapshot(volume(row, snapshot))
            await failpoints.reach("snapshot.created")
            if not hidden:
                await daemon.store.propose(FinishSnapshot(snapshot.key, snapshot.id, slot))


async def discard(daemon: "Daemon", key: str, snapshot: Snapshot) -> None:
    """Remove a hidden one, wherever its instance may be by now."""
    async with daemon.lock(f"instance {key}"):
        row = daemon.state.find(INSTANCES, key)
        if row is not None and row.location == daemon.member_id:
            await _delete(daemon, row, snapshot)


async def delete(daemon: "Daemon", key: str, snapshot: Snapshot) -> None:
    """Fine if it is gone by then. Raises Conflict while it is being copied."""
    async with daemon.lock(f"instance {key}"):
        row = present(daemon, key)
        now = daemon.state.find(SNAPSHOTS, snapshot.key)
        if now is None or now.id != snapshot.id:
            return
        if daemon.in_use[now.id]:
            raise Conflict(f'Snapshot "{now.instance}/{now.name}" is being copied', snapshot=now.name)
        with going(daemon, now.id):  # at once: it is applied a while later
            await daemon.store.propose(RemoveSnapshot(now.key, now.id))
            await failpoints.reach("snapshot.delete")
            await _delete(daemon, row, now)


async def _delete(daemon: "Daemon", row: Instance, snapshot: Snapshot) -> None:
    """The files, then the row."""
    await daemon.pools.driver(row.pool).delete(volume(row, snapshot))
    await failpoints.reach("snapshot.deleted")
    await daemon.store.propose(DeleteSnapshot(snapshot.key, snapshot.id))


async def tidy(daemon: "Daemon", row: Instance) -> None:
    """Take away what was begun and not finished; bring the instance back if that was cut short.

    The caller holds the lock, so nothing of it is being done now, but for what is in use.
    """
    for snapshot in all_of(daemon.state, row.key):
        if snapshot.status != "Ready" and not daemon.in_use[snapshot.id]:
            log.info("snapshot %s was not finished: it is removed", snapshot.key)
            await _delete(daemon, row, snapshot)
    if name := row.config.get(RESTORING):
        try:
            await _bring_back(daemon, row, name)
        except NotFound as gone:
            log.warning("%s stays half restored: %s", row.key, gone.message)
            await note(daemon, row, {RESTORING: ""})


def is_untidy(daemon: "Daemon", row: Instance) -> bool:
    return RESTORING in row.config or any(
        s.status != "Ready" and not daemon.in_use[s.id] for s in all_of(daemon.state, row.key)
    )


def check_restore(daemon: "Daemon", row: Instance, name: str) -> Snapshot:
    """The snapshot. Raises NotFound, or what keeps its config from being used."""
    snapshot = daemon.state.find(SNAPSHOTS, f"{row.key}/{name}")
    if snapshot is None or snapshot.status != "Ready":
        raise NotFound(f"Snapshot {row.name}/{name} does not exist", snapshot=name)
    new = _as_it_was(row, snapshot)
    change.check(daemon, row, msgspec.structs.replace(new, config=_own(new.config)))
    return snapshot


async def restore(daemon: "Daemon", key: str, name: str) -> None:
    """Bring it back to what it was, files and config. A running one is stopped, and started again.

    If that fails it goes on as it was before.
    """
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        check_restore(daemon, row, name)
        async with Undo() as undo:
            undo.push(_as_before, daemon, row)
            await note(daemon, row, {RESTORING: name})
            await failpoints.reach("instance.restore")
            await _bring_back(daemon, present(daemon, key), name)


async def _bring_back(daemon: "Daemon", row: Instance, name: str) -> None:
    """Idempotent, up to the entry in the log that ends it. Restarting is no stop that the cluster is told.

    What the log would refuse in the end, as a disk of then is gone, is refused before files are touched.
    """
    snapshot = check_restore(daemon, row, name)
    _command(daemon, row, snapshot).apply(Txn(Draft(daemon.state, daemon.state.index), time.time(), {}))
    runs = row.status in ("Running", "Frozen")
    await daemon.runtime.kill_container(row.volume)
    await teardown.take_down(daemon, row)
    await daemon.pools.driver(row.pool).restore(volume(row, snapshot))
    await failpoints.reach("instance.restored")
    command = _command(daemon, row, snapshot)
    row = (await daemon.store.propose(command)).get(INSTANCES, row.key)
    await daemon.pools.driver(row.pool).resize(volume_of(row, expanded(daemon.state, row)[1]))
    if runs:
        await start_container(daemon, row)


def _command(daemon: "Daemon", row: Instance, snapshot: Snapshot) -> RestoreInstance:
    """Devices that change give up their GPUs; what it needs then it gets at its next start."""
    before = expanded(daemon.state, row)[1]
    after = expanded(daemon.state, _as_it_was(row, snapshot))[1]
    changed = [name for name, options in before.items() if options != after.get(name)]
    held = grants_held(daemon.state, row.key, row.config)
    kept = tuple(grant for grant in held if grant.device not in changed)
    gone = tuple(name for name in changed if name not in after)
    grants = kept if kept != held else None
    return RestoreInstance(row.key, daemon.member_id, snapshot.name, grants, gone)


async def _as_before(daemon: "Daemon", row: Instance) -> None:
    now = present(daemon, row.key)
    if RESTORING in now.config:
        await note(daemon, now, {RESTORING: ""})
    if row.status in ("Running", "Frozen") and daemon.runtime.state(row.volume).status == "Stopped":
        await start_container(daemon, present(daemon, row.key))


def _as_it_was(row: Instance, snapshot: Snapshot) -> Instance:
    return msgspec.structs.replace(
        row,
        description=snapshot.description,
        config=snapshot.config,
        devices=snapshot.devices,
        profiles=snapshot.profiles,
        ephemeral=snapshot.ephemeral,
    )


def _own(config: dict[str, str]) -> dict[str, str]:
    """Without what the daemon noted then: that is not brought back."""
    return {key: value for key, value in config.items() if not key.startswith("volatile.")}


def check_stateful(stateful: bool) -> None:
    if stateful:
        raise Invalid("Unable to create a stateful snapshot. CRIU isn't installed", key="stateful")
