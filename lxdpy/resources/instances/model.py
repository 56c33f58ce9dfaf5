"""Instances: rows, wire forms, bodies."""

from typing import Any, Literal

import msgspec

from cluster.state.table import Stored, Table
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.images.model import Asked
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.remotes.model import Target
from lxdpy.resources.snapshots.model import Slot

Status = Literal["Creating", "Stopped", "Running", "Frozen", "Error"]

STATUS_CODES: dict[str, int] = {
    "Creating": 102,  # nothing of it runs: LXD's client asks to stop first what has any other code
    "Stopped": 102,
    "Running": 103,
    "Frozen": 110,
    "Error": 112,
    "Ready": 113,
}


BUILDING = {  # by source: what the operation is called that builds an instance
    "image": "Creating instance",
    "none": "Creating instance",
    "copy": "Creating instance",
    "backup": "Restoring backup",
    "migration": "Creating instance",
}


class Source(Stored, frozen=True):
    """What the owner builds a new instance from."""

    type: Literal["image", "none", "copy", "backup", "migration"]
    fingerprint: str = ""  # of the image
    instance: str = ""  # key of the one that is copied
    snapshot: str = ""  # id of its snapshot, if it is that which is copied
    file: str = ""  # of the backup, on the owner
    remote: Asked | None = None  # the image is to be had of another server first; then it has a fingerprint


class Move(Stored, frozen=True):
    """Where an instance is being moved to. `id` is that of the operation."""

    id: str
    to: str  # member id
    pool: str
    grants: tuple[Grant, ...] = ()  # GPUs that are kept for it there
    start: bool = False  # it ran, and is to run again
    evacuated: str = ""  # name of the member that is emptied by this


class IdRange(Stored, frozen=True):
    """Host ids of an instance that asks for other ones than those of one slot."""

    base: int
    size: int


class Instance(Stored, frozen=True):
    """An instance as the cluster knows it. Key: "project/name".

    The row is the reservation of name, id map and GPUs; the member it names builds it when it has applied the
    row.
    """

    project: str
    name: str
    uuid: str
    location: str  # member id of its owner
    architecture: str = "x86_64"
    type: str = "container"
    description: str = ""
    config: Config = {}  # with volatile.*, which is the daemons' own
    devices: Devices = {}
    profiles: tuple[str, ...] = ()
    ephemeral: bool = False
    stateful: bool = False
    created_at: float = 0.0
    last_used_at: float = 0.0
    restored_at: float = 0.0  # when it was last brought back to a snapshot
    status: Status = "Creating"
    killed: bool = False  # its last stop was by force; lifecycle events tell
    pool: str = "default"
    idmap: int = 0  # slot of its private id map; meaningless for a privileged instance
    source: Source = Source("none")
    operation: str = ""  # id of the operation that builds it
    created_by: dict[str, str] = {}
    move: Move | None = None
    reserved: Move | None = (
        None  # its place elsewhere is, or was, kept: unless it goes there, it runs on here
    )
    slot: Slot | None = None  # of its scheduled snapshots
    stayed: str = ""  # why its last move did not end where it should
    ids: IdRange | None = None  # its host ids, if they are not those of its slot

    @property
    def key(self) -> str:
        return f"{self.project}/{self.name}"

    @property
    def slots(self) -> range:
        """Those of IDMAPS that it takes."""
        return slots_of(self.ids) if self.ids else range(self.idmap, self.idmap + 1)

    @property
    def host_ids(self) -> IdRange:
        return self.ids or IdRange(IDMAP_BASE + self.idmap * IDMAP_SIZE, IDMAP_SIZE)

    @property
    def volume(self) -> str:
        """Name on disk, in LXC and in cgroups: "name", or "project_name" outside the default project."""
        return self.name if self.project == "default" else f"{self.project}_{self.name}"


class IdmapSlot(Stored, frozen=True):
    """A range of host ids taken by an instance. Key: the slot's number."""

    instance: str


INSTANCES: Table[Instance] = Table("instances", Instance)
IDMAPS: Table[IdmapSlot] = Table("idmaps", IdmapSlot)

PARKED = "volatile.gpu_parked"  # why a running instance has given its GPUs back for a while
LEASED = "volatile.gpu_leased"  # when the lease of its GPUs was last renewed, unix seconds
WARNED = "volatile.gpu_lease_ends"  # when it ends, once everybody has been told that it is about to
UNTIL_STOPPED = (PARKED, LEASED, WARNED)

IDMAP_BASE = 1_000_000  # first host id used for containers, as in LXD
IDMAP_SIZE = 65_536  # ids of one instance
IDMAP_SLOTS = (2**32 - 2 - IDMAP_BASE) // IDMAP_SIZE


def slots_of(ids: IdRange) -> range:
    """All that the ids touch."""
    first, last = (id - IDMAP_BASE for id in (ids.base, ids.base + ids.size - 1))
    return range(first // IDMAP_SIZE, last // IDMAP_SIZE + 1)


class InstanceSource(msgspec.Struct):
    """`source` of POST /1.0/instances."""

    type: str = ""
    alias: str = ""
    fingerprint: str = ""
    properties: dict[str, str] | None = None
    server: str = ""
    protocol: str = ""
    mode: str = ""
    operation: str = ""
    secret: str = ""
    secrets: dict[str, str] | None = None
    source: str = ""
    project: str = ""
    certificate: str = ""
    live: bool = False
    instance_only: bool = False
    container_only: bool = False
    refresh: bool = False


class InstancesPost(msgspec.Struct):
    name: str = ""
    source: InstanceSource = msgspec.field(default_factory=InstanceSource)
    architecture: str = ""
    type: str = ""
    description: str = ""
    config: Config | None = None
    devices: Devices | None = None
    profiles: list[str] | None = None  # null: the image's, or ["default"]; []: none
    ephemeral: bool = False
    stateful: bool = False
    instance_type: str = ""


class InstancePut(msgspec.Struct):
    architecture: str = ""
    description: str = ""
    config: Config | None = None
    devices: Devices | None = None
    profiles: list[str] | None = None
    ephemeral: bool = False
    stateful: bool = False
    restore: str = ""


class InstancePatch(msgspec.Struct):
    """Keys that are not sent stay; config and devices are merged."""

    architecture: str | None = None
    description: str | None = None
    config: Config | None = None
    devices: Devices | None = None
    profiles: list[str] | None = None
    ephemeral: bool | None = None


class InstanceStatePut(msgspec.Struct):
    action: str
    timeout: int = -1  # seconds; -1: no limit
    force: bool = False
    stateful: bool = False


class InstancePost(msgspec.Struct):
    """Rename or move."""

    name: str = ""
    migration: bool = False
    live: bool = False
    instance_only: bool = False
    container_only: bool = False
    pool: str = ""
    project: str = ""
    target: Target | None = None


class InstanceExecPost(
    msgspec.Struct, rename={"wait_for_websocket": "wait-for-websocket", "record_output": "record-output"}
):
    command: list[str]
    environment: dict[str, str] | None = None
    wait_for_websocket: bool = False
    interactive: bool = False
    record_output: bool = False
    width: int = 0
    height: int = 0
    user: int = 0
    group: int = 0
    cwd: str = ""


class InstanceConsolePost(msgspec.Struct):
    width: int = 0
    height: int = 0
    type: str = ""


Json = dict[str, Any]
