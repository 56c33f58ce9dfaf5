"""What a backup says of itself, in LXD's words: `index.yaml`, and `backup.yaml` among the files."""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import yaml

from cluster.membership.model import name_of
from cluster.state.txn import State
from lxdpy.host import safe_yaml
from lxdpy.host.backup_archive import CorruptBackup
from lxdpy.host.shift import Unmap
from lxdpy.resources.instances.expand import profiles_of
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.rendered import wire
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.snapshots.shown import wire as snapshot_wire
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.wire import NEVER

Json = dict[str, Any]
Told = TypeVar("Told")
IDMAP = "volatile.last_state.idmap"  # how the files' owners lie on disk; "[]": as inside


class Described(msgspec.Struct, frozen=True):
    """An instance, or a snapshot of one, as far as an import goes by it."""

    name: str = ""
    project: str = "default"
    description: str = ""
    architecture: str = ""
    config: Config | None = None
    devices: Devices | None = None
    profiles: tuple[str, ...] | None = None
    ephemeral: bool = False
    created_at: str | None = None
    expires_at: str | None = None
    last_used_at: str | None = None


class Whole(msgspec.Struct, frozen=True):
    """What LXD calls `config` in an index."""

    container: Described | None = None
    snapshots: tuple[Described, ...] | None = None


class Index(msgspec.Struct, frozen=True):
    name: str
    backend: str = ""
    pool: str = ""
    snapshots: tuple[str, ...] | None = None
    optimized: bool = False
    type: str = "container"
    config: Whole | None = None


def parse(text: bytes) -> Index:
    """Raises CorruptBackup, saying what is wrong."""
    found = read(text, Index)
    if found.type != "container":
        raise CorruptBackup(f'Invalid backup: of type "{found.type}", not of a container')
    if found.config is None or found.config.container is None:
        raise CorruptBackup("Invalid backup: index.yaml does not describe the instance")
    return found


def read(text: bytes, type: type[Told], file: str = "index.yaml") -> Told:
    """Raises CorruptBackup."""
    try:
        tree = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
        return msgspec.convert(_texts(tree), type, strict=False)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise CorruptBackup(f"Invalid backup: {file} is not YAML") from None
    except msgspec.ValidationError as error:
        raise CorruptBackup(f"Invalid backup: {file}: {error}") from None


class Loader(yaml.SafeLoader):
    """Without aliases, by which a small file can be made endless; and dates stay text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(("timestamp", "int", "float"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Dumper(safe_yaml.Dumper):
    """Without aliases for what stands there twice. By libyaml 0.4 ms an instance, in Python 3."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _texts(tree: Any) -> Any:
    """What is unset is left out, as in Go."""
    if isinstance(tree, dict):
        return {str(key): _texts(value) for key, value in tree.items() if value is not None}
    return [_texts(value) for value in tree] if isinstance(tree, list) else tree


def unmap_of(config: Config, key: str = IDMAP) -> Unmap:
    """How the owners of the files have to change. Raises CorruptBackup."""
    try:
        return Unmap(json.loads(config.get(key) or "[]"))
    except (ValueError, KeyError, TypeError):
        raise CorruptBackup(f"Invalid backup: {key} is no id map") from None


def describe(state: State, row: Instance, snapshots: list[Snapshot]) -> Json:
    """`backup.yaml`, and `config` of the index."""
    pool = state.get(POOLS, row.pool)
    volume = {"config": {}, "description": "", "content_type": "filesystem", "created_at": NEVER}
    return {
        "container": {
            **wire(state, row, name_of(state, row.location)),
            "status": "Stopped",
            "status_code": 102,
        },
        "snapshots": [snapshot_wire(state, snapshot) for snapshot in snapshots],
        "pool": {
            "config": pool.config,
            "description": pool.description,
            "name": pool.name,
            "driver": pool.driver,
            "used_by": [],
            "status": "Created",
            "locations": ["none"],
        },
        "profiles": [
            {
                "config": p.config,
                "description": p.description,
                "devices": p.devices,
                "name": p.name,
                "used_by": [],
            }
            for p in profiles_of(state, row.project, row.profiles)
        ],
        "volume": {
            **volume,
            "name": row.name,
            "type": "container",
            "used_by": [],
            "location": "none",
            "project": row.project,
        },
        "volume_snapshots": [{**volume, "name": one.name, "expires_at": NEVER} for one in snapshots],
    }


def index_of(state: State, row: Instance, snapshots: list[Snapshot], *, optimized: bool) -> Json:
    return {
        "name": row.name,
        "backend": state.get(POOLS, row.pool).driver,
        "pool": row.pool,
        "snapshots": [snapshot.name for snapshot in snapshots],
        "optimized": optimized,
        "optimized_header": optimized,
        "type": "container",
        "config": describe(state, row, snapshots),
    }


def header_of(snapshots: Iterable[str]) -> Json:
    """The list of streams in an optimized backup."""
    names = [*snapshots, ""]
    return {
        "subvolumes": [{"path": "/", "snapshot": name, "readonly": bool(name), "uuid": ""} for name in names]
    }


def text_of(tree: Json) -> bytes:
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text.encode()
