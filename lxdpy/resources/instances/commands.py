"""Raft commands of instances. The row is the reservation: of the name, the id map and the GPUs."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cluster.errors import AlreadyExists, Conflict, Invalid, NotFound
from cluster.membership.model import MEMBERS, name_of
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.table import Table
from cluster.state.txn import State, Txn
from lxdpy.resources.backups import model as backups
from lxdpy.resources.backups.model import BACKUPS
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, waiting_for
from lxdpy.resources.gpus.commands import (
    RACED,
    Grant,
    begin,
    drop,
    grant,
    regrant,
    release,
    rename_holder,
    volatile_of,
)
from lxdpy.resources.gpus.model import UNQUEUED, Order
from lxdpy.resources.images import commands as images
from lxdpy.resources.images.model import IMAGES, notes_of
from lxdpy.resources.instances.idmaps import check_free, free_run, free_slot
from lxdpy.resources.instances.model import (
    IDMAP_BASE,
    IDMAP_SIZE,
    IDMAPS,
    INSTANCES,
    UNTIL_STOPPED,
    IdmapSlot,
    IdRange,
    Instance,
    Source,
    Status,
    slots_of,
)
from lxdpy.resources.parking.rules import check_parked
from lxdpy.resources.profiles.model import PROFILES, Config, Devices
from lxdpy.resources.projects.model import home
from lxdpy.resources.projects.permitted import check_gpus, check_project
from lxdpy.resources.snapshots import model as snapshots
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.disks import check_disks

replace = msgspec.structs.replace
RENAMED_FROM = "volatile.renamed_from"  # name on disk that a renamed instance still has
LAST_POWER = "volatile.last_state.power"  # RUNNING of one that does not run: it is to be started again


class CreateInstance(Command, frozen=True, tag="instance.create"):
    """Record an instance and reserve what it needs, in one step. Its owner builds it once it has applied
    this.

    The proposer placed it on a snapshot that may be stale by now, so all is checked again here, where every
    member sees the same state: two racing creates cannot both get the last GPU.
    """

    instance: Instance
    grants: tuple[Grant, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()  # that are copied along

    def apply(self, txn: Txn) -> None:
        record(txn, self.instance, self.grants, self.snapshots)


def record(
    txn: Txn,
    new: Instance,
    grants: tuple[Grant, ...],
    snapshots: tuple[Snapshot, ...] = (),
    order: Order = UNQUEUED,
    status: Status = "Creating",
) -> None:
    """`order`: its place in the queue for GPUs; `status`: that of one that is there already is another.

    Raises Conflict, with the fact RACED where placing it again may help; AlreadyExists, NotFound, Forbidden,
    Exhausted.
    """
    member = txn.find(MEMBERS, new.location)
    if member is None or member.status != "ready":
        raise Conflict(f"Member {name_of(txn, new.location)} takes no instances", **{RACED: "member"})
    check_name_free(txn, new)
    txn.get(POOLS, new.pool)
    check_profiles(txn, new.project, new.profiles)
    slot = free_slot(txn, new.idmap)
    grant(txn, new.key, new.location, grants, started=False, order=order)
    txn.insert(IDMAPS, str(slot), IdmapSlot(new.key))
    config = {**new.config, **volatile_of(grants)}
    txn.insert(INSTANCES, new.key, replace(new, idmap=slot, config=config, status=status))
    if new.source.fingerprint:
        images.use(txn, f"{home(txn, new.project, 'images')}/{new.source.fingerprint}")
    for snapshot in snapshots:
        txn.insert(SNAPSHOTS, snapshot.key, snapshot)
    check_project(txn, new.project)
    check_disks(txn, txn.get(INSTANCES, new.key))


def check_name_free(state: State | Txn, new: Instance) -> None:
    """Raises AlreadyExists, also if one of that name waits for GPUs."""
    if state.find(INSTANCES, new.key) is not None or waiting_for(state, new.key) is not None:
        raise AlreadyExists(f'Instance "{new.name}" already exists', instance=new.name)


class TellImage(Command, frozen=True, tag="instance.image"):
    """The owner has the image (key) that the instance is to be made of: it was to be had of another server.

    From here on the instance is made of that one, whatever the server has.
    """

    key: str
    owner: str
    image: str

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if before.status != "Creating" or before.source.remote is None:
            raise Conflict("The instance is not being made of an image of another server")
        image = txn.get(IMAGES, self.image)
        after = replace(
            before,
            config=before.config | notes_of(image),
            source=Source("image", image.fingerprint),
            architecture=image.architecture or before.architecture,
        )
        txn.put(INSTANCES, self.key, after)
        images.use(txn, self.image)


class UpdateInstance(Command, frozen=True, tag="instance.update"):
    """What a user changed. The daemons' notes in `config` are not the user's to change: they stay.

    `grants`, unless None, are all GPUs it holds from now on; `gone` are devices whose notes are dropped.
    """

    key: str
    description: str
    config: Config
    devices: Devices
    profiles: tuple[str, ...]
    ephemeral: bool
    etag: str = ""
    grants: tuple[Grant, ...] | None = None
    gone: tuple[str, ...] = ()

    def apply(self, txn: Txn) -> None:
        before = txn.get(INSTANCES, self.key)
        check_etag(self.etag, instance_etag(before))
        check_profiles(txn, before.project, self.profiles)
        kept = before.config
        if self.grants is not None:
            check_parked(before, self.grants)
            runs = before.status in ("Running", "Frozen")
            kept = regrant(txn, self.key, before.location, self.grants, kept, started=runs)
        config = {key: value for key, value in self.config.items() if not is_note(key)}
        config |= {key: value for key, value in kept.items() if is_note(key)}
        marks = tuple(f"volatile.{device}." for device in self.gone)
        after = replace(
            before,
            description=self.description,
            config={key: value for key, value in config.items() if not key.startswith(marks)},
            devices=self.devices,
            profiles=self.profiles,
            ephemeral=self.ephemeral,
        )
        txn.put(INSTANCES, self.key, after)
        check_project(txn, after.project)
        check_disks(txn, after)


class StartInstance(Command, frozen=True, tag="instance.start"):
    """The owner is about to start it: these GPUs it needs, and no others. Conflict (RACED) when one is gone.

    Until it is reported running they may be given back as those of a create are: a start may fail.
    """

    key: str
    owner: str
    grants: tuple[Grant, ...] = ()

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        check_parked(before, self.grants)
        config = regrant(txn, self.key, self.owner, self.grants, before.config, started=False)
        txn.put(INSTANCES, self.key, replace(before, config=config))
        check_gpus(txn, before.project)


class ReserveIds(Command, frozen=True, tag="instance.ids"):
    """The owner is about to start it with so many host ids, from `base` on if that is not 0.

    What is taken is taken in whole slots, so no two instances of the cluster ever share an id. Conflict when
    another has them; Exhausted when there is no such range.
    """

    key: str
    owner: str
    size: int = IDMAP_SIZE
    base: int = 0

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        for slot in before.slots:
            txn.delete(IDMAPS, str(slot))
        if self.base:
            ids = IdRange(self.base, self.size)
            check_free(txn, slots_of(ids), self.base)
        else:
            first = free_run(txn, before.idmap, -(-self.size // IDMAP_SIZE))
            ids = IdRange(IDMAP_BASE + first * IDMAP_SIZE, self.size)
        slots = slots_of(ids)
        for slot in slots:
            txn.insert(IDMAPS, str(slot), IdmapSlot(self.key))
        usual = not self.base and self.size == IDMAP_SIZE
        txn.put(INSTANCES, self.key, replace(before, idmap=slots[0], ids=None if usual else ids))


class SetInstanceStatus(Command, frozen=True, tag="instance.status"):
    """The owner reports what became of an instance. Only the member that holds it may.

    A confirmed stop gives its GPUs back, unless `gpu.hold` is "always".
    """

    key: str
    owner: str
    status: Status
    volatile: dict[str, str] = {}  # to set; "" to remove
    hold: bool = False  # keep its GPUs: gpu.hold=always in the expanded config
    started: bool = False  # a container was started, and not only found running or changed
    killed: bool = False  # it was stopped by force

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        config = dict(before.config)
        if self.status in ("Stopped", "Error") and before.status != "Creating" and not self.hold:
            config = release(txn, self.key, config)
        elif self.status in ("Running", "Frozen"):
            begin(txn, self.key, config)
        if self.status in ("Stopped", "Error"):
            config = {key: value for key, value in config.items() if key not in UNTIL_STOPPED}
        config |= self.volatile
        config = {key: value for key, value in config.items() if value or not key.startswith("volatile.")}
        after = replace(
            before,
            status=self.status,
            config=config,
            killed=self.killed,
            last_used_at=txn.now if self.started else before.last_used_at,
        )
        txn.put(INSTANCES, self.key, after)


class ReleaseGrants(Command, frozen=True, tag="instance.release"):
    """Give back GPUs that a create was granted and no start followed in time."""

    key: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(INSTANCES, self.key)
        if before.status in ("Running", "Frozen", "Creating"):
            raise Conflict(f"Instance is {before.status.lower()}: {before.name}")
        txn.put(INSTANCES, self.key, replace(before, config=release(txn, self.key, before.config)))


class RenameInstance(Command, frozen=True, tag="instance.rename"):
    """Its owner moves what is on disk once it has applied this, and then drops the note RENAMED_FROM.

    With a project it goes there.
    """

    key: str
    name: str
    project: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(INSTANCES, self.key)
        if before.status != "Stopped" or before.move or before.reserved or RENAMED_FROM in before.config:
            raise Invalid("Renaming of running instance not allowed")
        config = {**before.config, RENAMED_FROM: before.volume}
        after = replace(before, name=self.name, project=self.project or before.project, config=config)
        check_profiles(txn, after.project, after.profiles)
        if txn.find(INSTANCES, after.key) is not None or waiting_for(txn, after.key) is not None:
            raise AlreadyExists(f'Name "{self.name}" already in use', instance=self.name)
        txn.insert(INSTANCES, after.key, after)
        txn.delete(INSTANCES, self.key)
        for slot in before.slots:
            txn.put(IDMAPS, str(slot), IdmapSlot(after.key))
        rename_holder(txn, self.key, after.key, before.config)
        if turn := waiting_for(txn, self.key):
            txn.put(GPU_QUEUE, turn.id, replace(turn, start=after.key, project=after.project))
        for table, row in dependents(txn, self.key):
            moved = replace(row, project=after.project, instance=after.name)
            txn.delete(table, row.key)
            txn.insert(table, moved.key, moved)
        check_project(txn, after.project)


class DeleteInstance(Command, frozen=True, tag="instance.delete"):
    """Forget it; the reservation ends. Its owner has removed it from disk before. Repeating it changes
    nothing.
    """

    key: str
    uuid: str

    def apply(self, txn: Txn) -> None:
        row = txn.find(INSTANCES, self.key)
        if row is None or row.uuid != self.uuid:
            raise NotFound(f"Instance not found: {self.key.removeprefix('default/')}")
        release(txn, self.key, row.config)
        free_places(txn, row)
        for slot in row.slots:
            txn.delete(IDMAPS, str(slot))
        for table, dependent in dependents(txn, self.key):
            txn.delete(table, dependent.key)
        txn.delete(INSTANCES, self.key)


def held_by(txn: Txn, member: str) -> list[str]:
    """Names of the member's instances."""
    return [row.name for row in txn.rows(INSTANCES).values() if row.location == member]


def forget_member(txn: Txn, member: str) -> None:
    """Its instances are gone with it."""
    for row in list(txn.rows(INSTANCES).values()):
        if row.location == member:
            release(txn, row.key, row.config)
            free_places(txn, row)
            for slot in row.slots:
                txn.delete(IDMAPS, str(slot))
            for table, dependent in dependents(txn, row.key):
                txn.delete(table, dependent.key)
            txn.delete(INSTANCES, row.key)


def dependents(txn: Txn, key: str) -> Iterator[tuple[Table[Any], Any]]:
    """What comes and goes with the instance (key), with the tables it is in."""
    for table, rows in ((SNAPSHOTS, snapshots.all_of(txn, key)), (BACKUPS, backups.all_of(txn, key))):
        yield from ((table, row) for row in rows)


def free_places(txn: Txn, row: Instance) -> None:
    """Give back the GPUs that are kept for it where it was to go."""
    for move in (row.move, row.reserved):
        for kept in move.grants if move else ():
            drop(txn, kept.uuid, row.key, kept.device)


def owned(txn: Txn, key: str, owner: str) -> Instance:
    """The row, if `owner` (member id) holds it. Raises Conflict otherwise."""
    row = txn.get(INSTANCES, key)
    if row.location != owner:
        here, there = name_of(txn, owner), name_of(txn, row.location)
        raise Conflict(f"Instance is on {there}, not on {here}: {row.name}")
    return row


def is_note(key: str) -> bool:
    """Whether a config key is the daemons' to set. A NIC's address is kept there too, but is the user's."""
    return key.startswith("volatile.") and not key.endswith(".hwaddr")


def check_profiles(txn: Txn, project: str, names: tuple[str, ...]) -> None:
    """Raises NotFound, as the profiles may have gone since they were asked for."""
    own = home(txn, project, "profiles")
    for name in names:
        txn.get(PROFILES, f"{own}/{name}")
    if len(set(names)) != len(names):
        raise Invalid("Duplicate profile found in request")


def instance_etag(row: Instance) -> str:
    return etag_of(row.architecture, row.config, row.devices, row.ephemeral, row.profiles)


COMMANDS: tuple[type[Command], ...] = (
    CreateInstance,
    TellImage,
    UpdateInstance,
    StartInstance,
    ReserveIds,
    SetInstanceStatus,
    ReleaseGrants,
    RenameInstance,
    DeleteInstance,
)
