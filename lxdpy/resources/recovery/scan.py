"""What lies in a pool of this member and is not registered."""

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error
from cluster.state.txn import State
from lxdpy.host.backup_archive import CorruptBackup
from lxdpy.host.paths import container_name
from lxdpy.host.storage import records
from lxdpy.host.storage.driver import StorageDriver, Volume
from lxdpy.resources.instances.commands import RENAMED_FROM
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.migration.model import RESIDUES
from lxdpy.resources.recovery import record
from lxdpy.resources.recovery.record import InstanceRecord, VolumeDescribed, VolumeRecord
from lxdpy.resources.storage_volumes.model import VOLUMES

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


class FoundInstance(msgspec.Struct, frozen=True):
    record: InstanceRecord
    snapshots: frozenset[str]  # names on disk of those that are there
    runs: bool = False


class FoundVolume(msgspec.Struct, frozen=True):
    id: str  # name on disk
    record: VolumeRecord
    snapshots: frozenset[str]


class Found(msgspec.Struct, frozen=True):
    pool: str
    instances: tuple[FoundInstance, ...] = ()
    volumes: tuple[FoundVolume, ...] = ()
    problems: tuple[str, ...] = ()  # what cannot be told what it is


async def scan(daemon: "Daemon", pool: str, driver: StorageDriver) -> Found:
    listed = await driver.volumes()
    state, me = daemon.state, daemon.member_id
    known = {"container": instances_in(state, me, pool), "custom": {*state.rows(VOLUMES)}}
    snapshots: dict[Volume, set[str]] = defaultdict(set)
    for volume in listed:
        if volume.name not in known[volume.kind]:
            snapshots[volume.origin] |= {volume.snapshot} - {""}
    there = [volume for volume in listed if volume in snapshots]  # not what is nothing but snapshots
    names = [volume.name for volume in there if volume.kind == "container"]
    states = await daemon.runtime.reattach(names)
    return await asyncio.to_thread(
        _read, driver, pool, {v: snapshots[v] for v in there}, {n for n in names if states[n].init_pid}
    )


def instances_in(state: State, member: str, pool: str) -> set[str]:
    """Names on disk of what the member has there, or is about to have, or is about to remove."""
    names: set[str] = set()
    for row in state.rows(INSTANCES).values():
        coming = row.move is not None and (row.move.to, row.move.pool) == (member, pool)
        if coming or (row.location, row.pool) == (member, pool):
            names |= {row.volume, row.config.get(RENAMED_FROM, row.volume)}
    for residue in state.rows(RESIDUES).values():
        if (residue.member, residue.pool) == (member, pool):
            names.add(container_name(*residue.instance.split("/", 1)))
    return names


def _read(driver: StorageDriver, pool: str, there: dict[Volume, set[str]], running: set[str]) -> Found:
    instances, volumes, problems = [], [], []
    for volume, snapshots in there.items():
        try:
            if volume.kind == "container":
                found = _instance(driver, volume)
                runs = volume.name in running
                instances.append(FoundInstance(found, frozenset(snapshots), runs))
            else:
                volumes.append(FoundVolume(volume.name, _custom(driver, volume), frozenset(snapshots)))
        except FileNotFoundError:
            problems.append(f'Instance "{volume.name}" in pool "{pool}" has no {records.RECORD}')
        except Error as wrong:
            problems.append(f'Volume "{volume.name}" in pool "{pool}": {wrong.message}')
    return Found(pool, tuple(instances), tuple(volumes), tuple(problems))


def _instance(driver: StorageDriver, volume: Volume) -> InstanceRecord:
    """Raises FileNotFoundError, Error."""
    found = record.instance_of(records.read(driver.path(volume), volume))
    of = found.container
    if container_name(of.project, of.name) != volume.name:
        raise CorruptBackup(f'its {records.RECORD} is that of "{of.name}" in project "{of.project}"')
    return found


def _custom(driver: StorageDriver, volume: Volume) -> VolumeRecord:
    """Without a record its folder says what it is called: as in LXD, whose folders are "project_name"."""
    try:
        return record.volume_of(records.read(driver.path(volume), volume))
    except FileNotFoundError:
        project, mark, name = volume.name.partition("_")
        described = VolumeDescribed(name, project=project) if mark and name else VolumeDescribed(volume.name)
        return VolumeRecord(described)
