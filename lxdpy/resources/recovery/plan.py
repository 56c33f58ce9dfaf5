"""PURE: what is to be registered of what was found, and what is in the way."""

import zlib
from collections.abc import Iterable, Iterator

import msgspec

from cluster.errors import Error
from cluster.state.command import Command
from cluster.state.txn import Draft, State, Txn
from lxdpy.resources.backups.index import Described
from lxdpy.resources.backups.restore import in_pool, notes_of, own_config, snapshot_of
from lxdpy.resources.instances.checks import check_config
from lxdpy.resources.instances.cloud_init import NOTE
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import IDMAP_SLOTS, INSTANCES, Instance
from lxdpy.resources.instances.templates import DUE
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.profiles.model import PROFILES, Config, Devices
from lxdpy.resources.projects.model import PROJECTS, home
from lxdpy.resources.recovery.commands import Recover
from lxdpy.resources.recovery.model import UnknownVolume
from lxdpy.resources.recovery.scan import Found, FoundInstance, FoundVolume
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.storage_pools.commands import CreatePool
from lxdpy.resources.storage_pools.model import POOLS, Pool
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_backups.restore import known_config
from lxdpy.resources.wire import seconds_of

replace = msgspec.structs.replace
UNSHIFTED = {"volatile.idmap.base": "0", "volatile.last_state.idmap": "[]"}  # how the files lie on disk
KEPT = (NOTE, DUE)  # notes that go on being true


class Plan(msgspec.Struct):
    pools: list[CreatePool] = []
    volumes: list[StorageVolume] = []
    instances: list[tuple[Instance, tuple[Snapshot, ...]]] = []
    unknown: list[UnknownVolume] = []
    errors: list[str] = []

    def commands(self) -> Iterator[Recover]:
        """Each with one thing, in an order that lets each stand on those before."""
        for volume in self.volumes:
            yield Recover((volume,))
        for instance, snapshots in self.instances:
            yield Recover(instances=(instance,), snapshots=snapshots)


class Trial:
    """What commands would make of the state."""

    def __init__(self, state: State) -> None:
        self.state = state

    def refused(self, command: Command, now: float) -> str:
        """Why it would not be applied; "" if it would, and is from here on."""
        draft = Draft(self.state, self.state.index + 1)
        try:
            command.apply(Txn(draft, now, {}))
        except Error as refusal:
            return refusal.message
        self.state = draft.publish()
        return ""


def planned(state: State, member: str, found: Iterable[Found], pools: Iterable[Pool], now: float) -> Plan:
    """`pools`: those that were not known either."""
    plan, trial, found = Plan(), Trial(state), list(found)
    for pool in pools:
        plan.pools.append(CreatePool(pool))
        if why := trial.refused(plan.pools[-1], now):
            plan.errors.append(f'Storage pool "{pool.name}": {why}')
    plan.errors += [problem for one in found for problem in one.problems]
    if plan.errors:
        return plan
    for one in found:
        for volume in one.volumes:
            _add_volume(plan, trial, member, one.pool, volume, now)
    for one in found:
        for instance in one.instances:
            _add_instance(plan, trial, member, one.pool, instance, now)
    plan.errors = list(dict.fromkeys(plan.errors))
    return plan


def _add_volume(plan: Plan, trial: Trial, member: str, pool: str, found: FoundVolume, now: float) -> None:
    of, name = found.record.volume, found.record.volume.name
    plan.unknown.append(UnknownVolume(pool, of.project, "custom", name, len(found.snapshots)))
    if trial.state.find(PROJECTS, of.project) is None:
        plan.errors.append(f'Project "{of.project}"')
        return
    try:
        row = _volume(trial.state.get(POOLS, pool), member, found, now)
    except (Error, ValueError) as wrong:
        plan.errors.append(f'Storage volume "{name}" in pool "{pool}": {wrong}')
        return
    if why := trial.refused(Recover((row,)), now):
        plan.errors.append(f'Storage volume "{name}" in pool "{pool}": {why}')
    plan.volumes.append(row)


def _volume(pool: Pool, member: str, found: FoundVolume, now: float) -> StorageVolume:
    """Raises Error for a config that this driver cannot have, ValueError for a date that is none."""
    of, mark = found.record.volume, found.record.lxdpy
    snapshots = [
        VolumeSnapshot(
            id=mark.snapshots[one.name],
            name=one.name,
            status="Ready",
            description=one.description,
            config=known_config(pool, one.config or {}),
            created_at=seconds_of(one.created_at),
            expires_at=seconds_of(one.expires_at),
        )
        for one in found.record.volume_snapshots or ()
        if mark.snapshots.get(one.name) in found.snapshots
    ]
    if not mark.uuid:  # it has no record: they are called as their folders are
        snapshots = [VolumeSnapshot(id, id, "Ready", created_at=now) for id in sorted(found.snapshots)]
    return StorageVolume(
        found.id,
        pool.name,
        of.project,
        of.name,
        member,
        description=of.description,
        config=known_config(pool, of.config or {}),
        created_at=seconds_of(of.created_at),
        snapshots=tuple(snapshots),
    )


def _add_instance(plan: Plan, trial: Trial, member: str, pool: str, found: FoundInstance, now: float) -> None:
    of = found.record.container
    plan.unknown.append(UnknownVolume(pool, of.project, "container", of.name, len(found.snapshots)))
    if missing := list(_missing(trial.state, of.project, (of, *(found.record.snapshots or ())))):
        plan.errors += missing
        return
    called = f'Instance "{of.name}" in project "{of.project}"'
    if found.runs:
        plan.errors.append(f"{called} runs: end it, or start the host anew")
        return
    if other := _same(trial.state, found.record.lxdpy.uuid):
        plan.errors.append(f'{called} is "{other.name}" in project "{other.project}" already')
        return
    try:
        row, snapshots = _instance(trial.state, member, pool, found)
        check_config(own_config(of))
    except (Error, ValueError) as wrong:
        plan.errors.append(f"{called}: {wrong}")
        return
    plan.errors += _missing_below(trial.state, row)
    if why := trial.refused(Recover(instances=(row,), snapshots=snapshots), now):
        plan.errors.append(f"{called}: {why}")
    plan.instances.append((row, snapshots))


def is_kept(key: str) -> bool:
    """Whether the key is recovered: not the notes of its last life."""
    addresses = key.startswith("volatile.") and key.endswith(".hwaddr")
    return not key.startswith("volatile.") or key in (*KEPT, "volatile.base_image") or addresses


def _same(state: State, uuid: str) -> Instance | None:
    return next((row for row in state.rows(INSTANCES).values() if row.uuid == uuid), None)


def _missing(state: State, project: str, described: Iterable[Described]) -> Iterator[str]:
    """Project and profiles, of an instance and its snapshots."""
    if state.find(PROJECTS, project) is None:
        yield f'Project "{project}"'
        return
    own = home(state, project, "profiles")
    for name in {name for of in described for name in of.profiles or ()}:
        if state.find(PROFILES, f"{own}/{name}") is None:
            yield f'Profile "{name}" in project "{own}"'


def _missing_below(state: State, row: Instance) -> Iterator[str]:
    """What its devices need."""
    devices: Devices = expanded(state, row)[1]
    own = home(state, row.project, "networks")
    for options in devices.values():
        network, pool = options.get("network"), options.get("pool")
        if options.get("type") == "nic" and network and state.find(NETWORKS, f"{own}/{network}") is None:
            yield f'Network "{network}" in project "{own}"'
        if options.get("type") == "disk" and pool and state.find(POOLS, pool) is None:
            yield f'Storage pool "{pool}"'


def _instance(
    state: State, member: str, pool: str, found: FoundInstance
) -> tuple[Instance, tuple[Snapshot, ...]]:
    """Stopped, without the notes of its last life. Raises Error, ValueError for a date that is none."""
    of, mark = found.record.container, found.record.lxdpy
    profiles = of.profiles or ()
    row = Instance(
        project=of.project,
        name=of.name,
        uuid=mark.uuid,
        location=member,
        architecture=of.architecture,
        description=of.description,
        config=own_config(of) | _notes(state, of.config or {}, mark.uuid),
        devices=in_pool(state, of.project, profiles, of, pool),
        profiles=profiles,
        ephemeral=of.ephemeral,
        created_at=seconds_of(of.created_at),
        last_used_at=seconds_of(of.last_used_at),
        status="Stopped",
        pool=pool,
        idmap=zlib.crc32(mark.uuid.encode()) % IDMAP_SLOTS,  # where to begin looking
    )
    return row, tuple(
        replace(snapshot_of(state, one, of.project, of.name, pool), id=mark.snapshots[one.name])
        for one in found.record.snapshots or ()
        if mark.snapshots.get(one.name) in found.snapshots
    )


def _notes(state: State, config: Config, uuid: str) -> Config:
    kept = {key: config[key] for key in KEPT if key in config}
    return notes_of(state, config) | kept | UNSHIFTED | {"volatile.uuid": uuid}
