"""What a new instance is made of: an image, nothing, or another instance; and what it has from there."""

import msgspec

from cluster.errors import Conflict, Invalid, NotFound, Unsupported
from cluster.state.txn import State
from lxdpy.resources.images.cache import kept
from lxdpy.resources.images.find import find_image
from lxdpy.resources.images.model import Image, ImageSource, notes_of
from lxdpy.resources.images.source import asked_of
from lxdpy.resources.instances.model import INSTANCES, Instance, InstanceSource, Source
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.model import home
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot, snapshots_of


class Origin(msgspec.Struct, frozen=True):
    """`config` and `devices` are what the new one has unless the request says otherwise."""

    source: Source = Source("none")
    profiles: tuple[str, ...] = ("default",)
    config: Config = {}
    devices: Devices = {}
    notes: Config = {}  # of the daemon's
    architecture: str = ""  # "": any
    member: str = ""  # id of the one that has it; the new one goes there if nothing speaks against it
    snapshots: tuple[Snapshot, ...] = ()  # to be copied along


def origin_of(state: State, source: InstanceSource, project: str, architecture: str = "") -> Origin:
    """Raises NotFound, Invalid for a source that is not offered here."""
    if source.type == "none":
        return Origin()
    if source.type == "copy":
        return _of_instance(state, source, project)
    if source.type == "migration":
        raise Unsupported("What another server sends is placed at once", key="source.type")
    if source.type != "image":
        raise Invalid(f"Unknown source type {source.type}", key="source.type", value=source.type)
    if source.server:
        return _of_server(state, source, project, architecture)
    return _of_image(find_image(state, project, source.fingerprint, source.alias, source.properties))


def _of_server(state: State, source: InstanceSource, project: str, architecture: str) -> Origin:
    """Of what is here of it; otherwise the owner is to get it, wherever that will be."""
    wanted = asked_of(
        ImageSource(
            "image", server=source.server, protocol=source.protocol, certificate=source.certificate,
            alias=source.alias, fingerprint=source.fingerprint, secret=source.secret, project=source.project,
        )
    )  # fmt: skip
    there = kept(state, home(state, project, "images"), wanted, architecture)
    return _of_image(there) if there is not None else Origin(Source("image", remote=wanted))


def _of_image(image: Image) -> Origin:
    return Origin(
        Source("image", image.fingerprint),
        profiles=image.profiles,
        config={},
        notes=notes_of(image),
        architecture=image.architecture,
    )


def _of_instance(state: State, source: InstanceSource, project: str) -> Origin:
    """Of `instance` or `instance/snapshot`."""
    if not source.source:
        raise Invalid("Must specify a source instance", key="source.source")
    row, snapshot = find_source(state, source.project or project, source.source)
    alone = source.instance_only or source.container_only or snapshot is not None
    of = snapshot or row
    return Origin(
        Source("copy", instance=row.key, snapshot=snapshot.id if snapshot else ""),
        profiles=of.profiles,
        config={key: value for key, value in of.config.items() if not key.startswith("volatile.")},
        devices=of.devices,
        notes={key: value for key, value in of.config.items() if key == "volatile.base_image"},
        architecture=of.architecture,
        member=row.location,
        snapshots=() if alone else tuple(snapshots_of(state, row.key)),
    )


def find_source(state: State, project: str, path: str) -> tuple[Instance, Snapshot | None]:
    """Raises NotFound; Conflict while it is not to be copied."""
    name, slash, snapshot = path.partition("/")
    row = state.find(INSTANCES, f"{project}/{name}")
    if row is None:
        raise NotFound("Instance not found", instance=name)
    if row.status == "Creating" or row.move is not None:
        raise Conflict(f"The instance is being {'moved' if row.move else 'created'}: {name}")
    if not slash:
        return row, None
    found = state.find(SNAPSHOTS, f"{row.key}/{snapshot}")
    if found is None or found.status != "Ready":
        raise NotFound("Instance snapshot not found", snapshot=snapshot)
    return row, found


def copies(origin: Origin, project: str, name: str) -> tuple[Snapshot, ...]:
    """Its snapshots as the new instance's own; on disk they keep their ids."""
    return tuple(
        msgspec.structs.replace(snapshot, project=project, instance=name) for snapshot in origin.snapshots
    )
