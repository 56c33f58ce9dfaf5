"""Storage driver `btrfs`: every image, volume and snapshot is a subvolume; making one is a snapshot.

    containers/NAME/rootfs   its files; `metadata.yaml` and `templates/` beside it, as in the image

LXC maps the ids itself (`idmap=container`), so a container needs no mount, and a crash leaves none.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from cluster.errors import Unsupported
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import list_of, matching, size
from lxdpy.host.idmap import Idmap
from lxdpy.host.storage import attach, btrfs_ioctl, btrfs_send, btrfs_source
from lxdpy.host.storage.btrfs_trees import clone, make_empty, remove, replace
from lxdpy.host.storage.cache import ImageCache
from lxdpy.host.storage.driver import Abilities, Mounts, Pool, Receive, RootfsMount, Space, Unpack, Volume
from lxdpy.host.storage.layout import (
    admit,
    disk_usage,
    entries,
    image_path,
    keep_parts,
    list_volumes,
    make_folder,
    make_top,
    move,
    named,
    need,
    part_of,
    snapshots_path,
    space_of,
    top_folders,
    volume_path,
)
from lxdpy.host.storage.room import room_in

QUOTA_OFF = (errno.ENOTCONN, errno.ENOENT, errno.EINVAL)  # what QGROUP_LIMIT says, by kernel


# btrfs(5), and those of all file systems; a wrong one would keep the pool from being opened.
OPTIONS = (
    "(no)?(acl|autodefrag|barrier|datacow|datasum|discard|enospc_debug|flushoncommit|inode_cache|space_cache"
    "|ssd|ssd_spread|treelog|atime|diratime|relatime|strictatime|lazytime|suid|dev|exec)"
    "|(commit|max_inline|metadata_ratio|thread_pool|compress|compress-force|fragment|rescue|discard|device"
    "|space_cache|fatal_errors|check_int_print_mask)=[A-Za-z0-9:/._-]+"
    "|clear_cache|compress|compress-force|degraded|rescan_uuid_tree|skip_balance|usebackuproot"
    "|user_subvol_rm_allowed|defaults|ro|rw"
)
mount_options = list_of(matching(OPTIONS, "a mount option of btrfs"))


class Btrfs:
    name: ClassVar[str] = "btrfs"
    abilities: ClassVar[Abilities] = Abilities(copy_on_write=True, quota=True, optimized=True)
    pool_keys: ClassVar[KeyTable] = KeyTable("btrfs storage pool", [
        Key(name="source", per_member=True,
            doc="Block device, or empty folder on btrfs; unset makes a file and puts the pool in it."),
        Key(name="size", parse=size, per_member=True, needs="no `source`",
            doc="Size of that file; unset for a fifth of the free space, 5GiB to 30GiB."),
        Key(name="btrfs.mount_options", parse=mount_options, default="user_subvol_rm_allowed",
            doc="Options of its mount, from the daemon's next start on."),
    ])  # fmt: skip
    volume_keys: ClassVar[KeyTable] = KeyTable("btrfs storage volume", [])

    def __init__(self, pool: Pool, mounts: Mounts) -> None:
        self._pool = pool
        self._cache = ImageCache(pool, make_empty, remove)

    async def create_pool(self) -> None:
        with attach.told(self._pool):
            await btrfs_source.create(self._pool, self._options())
            make_top(self._pool.mount)

    async def delete_pool(self) -> None:
        if self._pool.mount.exists():
            for volume in list_volumes(self._pool):
                await remove(self.path(volume))
            for name in named(self._pool.mount / "images"):
                await remove(image_path(self._pool, name))
        await btrfs_source.delete(self._pool, tuple(top_folders()))

    async def open_pool(self) -> None:
        with attach.told(self._pool):
            await btrfs_source.open_(self._pool, self._options())
            make_top(self._pool.mount)
            await btrfs_send.sweep(self._pool.mount)
            await self._cache.clean()

    async def close_pool(self) -> None:
        await attach.detach(self._pool.mount)

    async def space(self) -> Space:
        return await asyncio.to_thread(space_of, self._pool.mount)

    async def ensure_image(self, fingerprint: str, unpack: Unpack) -> None:
        await self._cache.ensure(fingerprint, unpack)

    async def delete_image(self, fingerprint: str) -> None:
        await self._cache.delete(fingerprint, lambda _: False)

    async def images(self) -> list[str]:
        return self._cache.wanted()

    async def create(self, volume: Volume) -> None:
        async with room_in(self._pool.mount, "make a volume"):
            await make_empty(self.path(volume))
            if volume.kind == "container":
                make_folder(self.path(volume) / "rootfs", 0o755)
        await self._limit(volume)

    async def create_from_image(self, volume: Volume, fingerprint: str) -> None:
        image = need(image_path(self._pool, fingerprint), "Image")
        if not self.path(volume).exists():
            async with room_in(self._pool.mount, "make a volume"):
                try:
                    await asyncio.to_thread(btrfs_ioctl.snapshot, image, self.path(volume))
                except FileNotFoundError:
                    need(image, "Image")  # deleted meanwhile
                    raise
        await self._limit(volume)

    async def copy(self, source: Volume, target: Volume) -> None:
        if not self.path(target).exists():
            origin = need(self.path(source), "Volume")
            async with room_in(self._pool.mount, "copy a volume"):
                await clone(origin, self.path(target), read_only=bool(target.snapshot))
        await self._limit(target)

    async def fill(self, volume: Volume, unpack: Unpack) -> None:
        async def make(part: Path) -> None:
            await make_empty(part)
            await unpack(part)
            if volume.kind == "container":
                await asyncio.to_thread(keep_parts, part)

        async with room_in(self._pool.mount, "fill a volume"):
            await replace(self.path(volume), make, read_only=bool(volume.snapshot))
        await self._limit(volume)

    async def send(
        self, volume: Volume, parent: Volume | None, extra: Mapping[str, bytes]
    ) -> AsyncGenerator[bytes, None]:
        """What has changed since `parent`, in the form of `btrfs send`."""
        path, below = need(self.path(volume), "Volume"), self.path(parent) if parent else None
        async with btrfs_send.sent(self._pool.mount, path, below, extra) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receive]:
        """What comes is kept aside as it came until all has come: later streams are on top of it."""
        async with btrfs_send.aside(self._pool.mount) as receive:

            async def put(volume: Volume, chunks: AsyncIterable[bytes], finish: Unpack) -> None:
                async def make(part: Path) -> None:
                    await receive(chunks, part)
                    if volume.kind == "container":
                        await asyncio.to_thread(keep_parts, part)
                    await finish(part)

                async with room_in(self._pool.mount, "receive a volume"):
                    await replace(self.path(volume), make, read_only=bool(volume.snapshot))
                await self._limit(volume)

            yield put

    async def rename(self, volume: Volume, name: str) -> None:
        renamed = Volume(name, volume.kind)
        move(snapshots_path(self._pool, volume), snapshots_path(self._pool, renamed))
        move(self.path(volume), self.path(renamed))

    async def delete(self, volume: Volume) -> None:
        if not volume.snapshot:
            folder = snapshots_path(self._pool, volume)
            for name in entries(folder):  # also of what a crash left unfinished
                await remove(folder / name)
            await remove(folder)
        await remove(self.path(volume))
        await remove(part_of(self.path(volume)))

    async def resize(self, volume: Volume) -> None:
        await asyncio.to_thread(_limit, self.path(volume), volume.size)

    async def snapshot(self, snapshot: Volume) -> None:
        await self.copy(snapshot.origin, snapshot)

    async def restore(self, snapshot: Volume) -> None:
        await clone(need(self.path(snapshot), "Snapshot"), self.path(snapshot.origin), read_only=False)
        await self._limit(snapshot.origin)

    async def volumes(self) -> list[Volume]:
        return list_volumes(self._pool)

    async def used(self, volume: Volume) -> int:
        path = need(self.path(volume), "Volume")
        counted = await asyncio.to_thread(btrfs_ioctl.referred, path)
        return await disk_usage(path) if counted is None else counted

    async def mount(self, volume: Volume, idmap: Idmap | None) -> RootfsMount:
        path = need(self.path(volume), "Volume")
        if not volume.snapshot:  # which cannot be changed
            admit(path, idmap)
        return RootfsMount(path / "rootfs", mapped=False)

    async def unmount(self, volume: Volume) -> None:
        """Nothing was mounted."""

    def path(self, volume: Volume) -> Path:
        return volume_path(self._pool, volume)

    async def _limit(self, volume: Volume) -> None:
        if volume.size:
            await self.resize(volume)

    def _options(self) -> str:
        return (
            self._pool.config.get("btrfs.mount_options")
            or self.pool_keys.default("btrfs.mount_options")
            or ""
        )


def _limit(path: Path, limit: int) -> None:
    try:
        btrfs_ioctl.limit(path, limit)
    except OSError as error:
        if error.errno not in QUOTA_OFF:
            raise
        if limit:
            raise Unsupported("Quotas are off on the pool's file system (btrfs quota enable)") from None
