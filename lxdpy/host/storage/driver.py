"""What a storage driver does, and the words it is told in."""

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import msgspec

from cluster.errors import Invalid
from lxdpy.config.key import KeyTable
from lxdpy.host.idmap import Idmap

NAME = re.compile(r"(?!\.)[^/\s\0]{1,255}")
"""Of pools, volumes and snapshots: they become folders. The API's own rules for them are narrower."""

Kind = Literal["container", "custom"]
KINDS: tuple[Kind, ...] = ("container", "custom")
Unpack = Callable[[Path], Awaitable[object]]
"""Fills an empty folder with an image: `rootfs/`, `metadata.yaml`, `templates/`."""
Receive = Callable[["Volume", AsyncIterable[bytes], Unpack], Awaitable[None]]
"""Makes a volume of a stream, in place of what it was, and lets the last argument change its folder."""


def check_name(name: str) -> None:
    """Raises Invalid for what could lead out of the pool, or hide in it."""
    if not NAME.fullmatch(name):
        raise Invalid(f'Not a name for storage: "{name[:80]}"')


@dataclass(frozen=True)
class Pool:
    """A pool as this member has it; `config` holds the member's own keys (source, size) too."""

    name: str
    lxd_dir: Path
    config: Mapping[str, str]

    def __post_init__(self) -> None:
        check_name(self.name)

    @cached_property
    def mount(self) -> Path:
        """Where its volumes are found, wherever they come from."""
        return self.lxd_dir / "storage-pools" / self.name

    @property
    def loop_file(self) -> Path:
        """The disk of a pool that was given no source of its own."""
        return self.lxd_dir / "disks" / f"{self.name}.img"


@dataclass(frozen=True)
class Volume:
    """A volume, or with `snapshot` one of its snapshots. `name` is `container_name()`'s, with project."""

    name: str
    kind: Kind = "container"
    snapshot: str = ""
    size: int = 0  # bytes it may take; 0: as much as the pool has

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.snapshot:
            check_name(self.snapshot)

    @property
    def origin(self) -> "Volume":
        """The volume a snapshot is of."""
        return Volume(self.name, self.kind, size=self.size)


@dataclass(frozen=True)
class RootfsMount:
    """What LXC is told of a root file system."""

    path: Path
    mapped: bool
    """The mount maps the ids already; if not, LXC must (`lxc.rootfs.options = idmap=container`)."""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What callers may count on; anything not claimed here is done the slow, general way above."""

    copy_on_write: bool = False  # copies and snapshots cost no space at first
    quota: bool = False  # a volume's `size` is enforced; if not, it is accepted and means nothing
    shared: bool = False  # every member sees the same volumes
    optimized: bool = False  # `send` makes streams of what changed only, in LXD's form for backups


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """How full a pool is. A file system that makes inodes as it needs them counts none: 0."""

    total: int  # bytes
    used: int
    inodes_total: int
    inodes_used: int


class Mounts(Protocol):
    """Mounting that takes a process of another shape than the daemon: `lxdpy.host.lxc.helper_mounts`."""

    async def mount_overlay(
        self, lower: Sequence[Path], upper_work: Path, target: Path, idmap: Idmap | None
    ) -> None: ...

    async def unmount(self, target: Path) -> None: ...


class StorageDriver(Protocol):
    """Every method is idempotent: to make what exists, or remove what is gone, succeeds.

    One object a pool, for as long as the daemon runs. Callers hold the lock of the volume; images lock
    themselves. Errors: `CommandFailed`, `Exhausted` when the pool is full, `NotFound` for a missing source.
    """

    name: ClassVar[str]
    abilities: ClassVar[Abilities]
    pool_keys: ClassVar[KeyTable]
    volume_keys: ClassVar[KeyTable]

    def __init__(self, pool: Pool, mounts: Mounts) -> None: ...

    async def create_pool(self) -> None:
        """Make it and leave it open. Raises Invalid for an unusable source; then nothing is left."""

    async def delete_pool(self) -> None:
        """With all volumes. A source the user brought stays, empty."""

    async def open_pool(self) -> None:
        """Make a pool usable that exists: at every start of the daemon."""

    async def close_pool(self) -> None:
        """Let go of devices and mounts. Conflict while a volume is in use."""

    async def space(self) -> Space: ...

    async def ensure_image(self, fingerprint: str, unpack: Unpack) -> None:
        """Have the image unpacked here, once for all its instances. If `unpack` fails nothing is left."""

    async def delete_image(self, fingerprint: str) -> None:
        """Forget the unpacked image. Where instances still stand on it, it goes with the last of them."""

    async def images(self) -> list[str]:
        """Fingerprints of the images that are unpacked here and may be created from."""

    async def create(self, volume: Volume) -> None:
        """An empty volume."""

    async def create_from_image(self, volume: Volume, fingerprint: str) -> None:
        """In constant time, whatever the image's size; NotFound unless `ensure_image` was called for it."""

    async def copy(self, source: Volume, target: Volume) -> None:
        """Target is a new volume of its own; source may be a snapshot, or in use (freeze it for `dir`)."""

    async def fill(self, volume: Volume, unpack: Unpack) -> None:
        """Make the volume or snapshot of what `unpack` puts into an empty folder: for a container what an
        image has, of which nothing else is kept. In place of what it was; whole, or not at all.
        """

    def send(
        self, volume: Volume, parent: Volume | None, extra: Mapping[str, bytes]
    ) -> AsyncGenerator[bytes, None]:
        """The volume or snapshot as a stream in the driver's own form, for `receiving` of its kind.

        On top of `parent`, a snapshot that the receiver got before, if that saves anything; with `extra`
        files at its top. Nothing may write to the volume meanwhile. Raises Unsupported for what has no such
        form: it can still be packed.
        """

    def receiving(self) -> AbstractAsyncContextManager[Receive]:
        """Within, streams of `send` can be received, those first that others were sent on top of.

        Of members, or of administrators: they are not looked into. Receiving raises Unsupported for what
        stands on something that is not here.
        """

    async def rename(self, volume: Volume, name: str) -> None:
        """With its snapshots; it must not be mounted."""

    async def delete(self, volume: Volume) -> None:
        """With its snapshots; unmounts it first. That no container runs on it is for the caller to see to."""

    async def resize(self, volume: Volume) -> None:
        """Make `volume.size` its limit. Raises Unsupported if the pool cannot though the driver can."""

    async def snapshot(self, snapshot: Volume) -> None: ...

    async def restore(self, snapshot: Volume) -> None:
        """Bring the volume back to the snapshot; it must not be mounted."""

    async def volumes(self) -> list[Volume]:
        """All of them with their snapshots; `size` is not filled in."""

    async def used(self, volume: Volume) -> int:
        """Bytes on disk that are this volume's own: without its image and its snapshots."""

    async def mount(self, volume: Volume, idmap: Idmap | None) -> RootfsMount:
        """Make a container's file system reachable at `<path>/rootfs`, until `unmount` or a reboot.

        `idmap` None shows the files as they lie on disk: for privileged containers, exports, and to put files
        into a stopped one (through a map, the host's root can make none: EOVERFLOW). Conflict if it is
        mounted with another map.
        """

    async def unmount(self, volume: Volume) -> None: ...

    def path(self, volume: Volume) -> Path:
        """Its folder. A container's has `metadata.yaml`, `templates/`, and when mounted `rootfs/`."""
