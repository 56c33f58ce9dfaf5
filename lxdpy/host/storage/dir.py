"""Storage driver `dir`: plain folders on any file system.

A container is an overlay: its image, unpacked once per pool and never written to, below, and a folder of what
the container changed above. So creating one takes the same few milliseconds whatever the image's size.

    containers/NAME/image           symlink to the image it stands on, relative so that a pool can be moved
    containers/NAME/overlay/upper   what it changed; `overlay/work` is the kernel's
    containers/NAME/rootfs          where the overlay is mounted, for as long as it is in use
    containers/NAME/{metadata.yaml,templates}   its own, from the image
    containers-snapshots/NAME/SNAP  the same without `rootfs` and `work`
"""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import ClassVar

from cluster.errors import Conflict, Unsupported
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import boolean, size
from lxdpy.host import pipe
from lxdpy.host.idmap import Idmap
from lxdpy.host.image_archive import ATTRIBUTES
from lxdpy.host.run import run
from lxdpy.host.storage import attach
from lxdpy.host.storage.cache import ImageCache
from lxdpy.host.storage.driver import Abilities, Mounts, Pool, Receive, RootfsMount, Space, Unpack, Volume
from lxdpy.host.storage.layout import (
    IMAGES,
    VolumeInUse,
    admit,
    disk_usage,
    entries,
    image_path,
    keep_parts,
    list_volumes,
    make_folder,
    make_top,
    mounted,
    move,
    named,
    need,
    part_of,
    put,
    remove_tree,
    snapshots_path,
    space_of,
    there,
    top_folders,
    volume_path,
)
from lxdpy.host.storage.room import room_in
from lxdpy.host.undo import Undo

COPY_FOR = 3600.0  # seconds
SENT = ("metadata.yaml", "templates", "image", "overlay/upper")
OVERLAY = ("--xattrs", "--xattrs-include=trusted.overlay.*")  # what overlayfs notes of removed files


class Dir:
    name: ClassVar[str] = "dir"
    abilities: ClassVar[Abilities] = Abilities()
    pool_keys: ClassVar[KeyTable] = KeyTable("dir storage pool", [
        Key(name="source", per_member=True, doc="Empty folder to use; unset makes one below the daemon's."),
        Key(name="rsync.bwlimit", parse=size, default="0",
            doc="Bytes a second at which an instance is sent to another server; 0: no limit."),
        Key(name="rsync.compression", parse=boolean, default="true",
            doc="Whether what is sent to another server, or comes from one, is compressed."),
    ])  # fmt: skip
    volume_keys: ClassVar[KeyTable] = KeyTable("dir storage volume", [])

    def __init__(self, pool: Pool, mounts: Mounts) -> None:
        self._pool = pool
        self._mounts = mounts
        self._cache = ImageCache(pool, _make_private, remove_tree)

    async def create_pool(self) -> None:
        with attach.told(self._pool):
            if (source := self._pool.config.get("source")) and not mounted(self._pool.mount):
                await attach.bind(attach.empty_source(source), self._pool.mount)
            make_top(self._pool.mount)

    async def delete_pool(self) -> None:
        for volume in list_volumes(self._pool):
            await self.unmount(volume)
        for name in top_folders():
            await remove_tree(self._pool.mount / name)
        await self.close_pool()
        await remove_tree(self._pool.mount)

    async def open_pool(self) -> None:
        with attach.told(self._pool):
            if source := self._pool.config.get("source"):
                await attach.bind(need(Path(source), "Storage pool source"), self._pool.mount)
            make_top(self._pool.mount)
            await self._cache.clean()

    async def close_pool(self) -> None:
        await attach.detach(self._pool.mount)

    async def space(self) -> Space:
        return await asyncio.to_thread(space_of, self._pool.mount)

    async def ensure_image(self, fingerprint: str, unpack: Unpack) -> None:
        await self._cache.ensure(fingerprint, unpack)

    async def delete_image(self, fingerprint: str) -> None:
        await self._cache.delete(fingerprint, self._in_use)

    async def images(self) -> list[str]:
        return self._cache.wanted()

    async def create(self, volume: Volume) -> None:
        async with room_in(self._pool.mount, "make a volume"):
            await asyncio.to_thread(_make, self.path(volume), volume)

    async def create_from_image(self, volume: Volume, fingerprint: str) -> None:
        async with self._cache.held(fingerprint) as image, room_in(self._pool.mount, "make a volume"):
            await asyncio.to_thread(self._build, volume, image)

    def _build(self, volume: Volume, image: Path) -> None:
        path = self.path(volume)
        link = path / "image"
        if link.is_symlink() and link.readlink().name != image.name:
            raise Conflict(f"There is a volume of another image: {volume.name}")
        _make(path, volume)
        upper, root = path / "overlay" / "upper", (image / "rootfs").stat()
        os.chown(upper, root.st_uid, root.st_gid)  # the upper's own attributes are those of / inside
        upper.chmod(root.st_mode & 0o7777)
        _copy_metadata(image, path)
        if not link.is_symlink():
            link.symlink_to(self._link(volume, image.name))

    async def copy(self, source: Volume, target: Volume) -> None:
        if not self.path(target).exists():
            await self._clone(source, target)

    async def fill(self, volume: Volume, unpack: Unpack) -> None:
        async with self._replaced(volume, "fill a volume") as part:
            await unpack(part)
            if volume.kind == "container":
                await asyncio.to_thread(keep_parts, part)
                make_folder(part / "overlay", 0o700)
                (part / "rootfs").rename(part / "overlay" / "upper")  # over no image

    async def send(
        self, volume: Volume, parent: Volume | None, extra: Mapping[str, bytes]
    ) -> AsyncGenerator[bytes, None]:
        """What it changed of its image, and which that is."""
        path = need(self.path(volume), "Volume")
        names = [name for name in SENT if there(path / name)] if volume.kind == "container" else ["."]
        words = ("--create", "--file=-", "--warning=no-file-ignored", f"--directory={path}", *OVERLAY)
        async with aclosing(pipe.output("tar", *words, *ATTRIBUTES, "--", *names)) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receive]:
        yield self._receive

    async def _receive(self, volume: Volume, chunks: AsyncIterable[bytes], finish: Unpack) -> None:
        async with self._replaced(volume, "receive a volume") as part:
            if volume.kind == "container":
                make_folder(part / "overlay", 0o700)
            words = ("--extract", "--file=-", "--preserve-permissions", "--same-owner", f"--directory={part}")
            await pipe.feed(chunks, "tar", *words, *OVERLAY, *ATTRIBUTES)
            link = part / "image"
            if link.is_symlink():
                image = link.readlink().name
                if not image_path(self._pool, image).is_dir():
                    raise Unsupported(f"Image not in the pool: {image}", fingerprint=image)
                link.unlink()
                link.symlink_to(self._link(volume, image))
            await finish(part)

    async def rename(self, volume: Volume, name: str) -> None:
        renamed = Volume(name, volume.kind)
        await self.unmount(volume)
        move(snapshots_path(self._pool, volume), snapshots_path(self._pool, renamed))
        move(self.path(volume), self.path(renamed))

    async def delete(self, volume: Volume) -> None:
        await self.unmount(volume)
        if not volume.snapshot:
            folder = snapshots_path(self._pool, volume)
            for name in named(folder):
                await self.unmount(Volume(volume.name, volume.kind, name))
            await remove_tree(folder)
        await remove_tree(self.path(volume))
        await remove_tree(part_of(self.path(volume)))
        await self._cache.sweep(self._in_use)

    async def resize(self, volume: Volume) -> None:
        """Accepted and not enforced, as `abilities` says: plain folders know no limit."""

    async def snapshot(self, snapshot: Volume) -> None:
        await self.copy(snapshot.origin, snapshot)

    async def restore(self, snapshot: Volume) -> None:
        volume = snapshot.origin
        if mounted(self.path(volume) / "rootfs"):
            raise VolumeInUse(f"Cannot be restored while it is mounted: {volume.name}")
        await self._clone(snapshot, volume)

    async def volumes(self) -> list[Volume]:
        return list_volumes(self._pool)

    async def used(self, volume: Volume) -> int:
        path = self.path(volume)
        return await disk_usage(path / "overlay" if volume.kind == "container" else path)

    async def mount(self, volume: Volume, idmap: Idmap | None) -> RootfsMount:
        path = need(self.path(volume), "Volume")
        target, overlay = path / "rootfs", path / "overlay"
        wanted = (overlay / "upper").stat().st_uid + (idmap.base if idmap else 0)
        if mounted(target):
            if target.stat().st_uid != wanted:
                raise VolumeInUse(f"Mounted for another id map: {volume.name}")
            return RootfsMount(target, mapped=idmap is not None)
        lower = path / "image" / "rootfs"
        if not lower.is_dir():  # made by `create`, of no image
            lower = path / "lower"
            make_folder(lower, 0o755)
        make_folder(target, 0o755)
        admit(path, idmap)
        await self._mounts.mount_overlay([lower], overlay, target, idmap)
        return RootfsMount(target, mapped=idmap is not None)

    async def unmount(self, volume: Volume) -> None:
        target = self.path(volume) / "rootfs"
        if mounted(target):
            await self._mounts.unmount(target)

    def path(self, volume: Volume) -> Path:
        return volume_path(self._pool, volume)

    async def _clone(self, source: Volume, target: Volume) -> None:
        """Make `target` a copy of `source`, in place of what it was: whole, or not at all."""
        origin = need(self.path(source), "Volume")
        async with self._replaced(target, "copy a volume") as part:
            if source.kind == "container":
                make_folder(part / "overlay", 0o700)
                _copy_metadata(origin, part)
                if (origin / "image").is_symlink():
                    (part / "image").symlink_to(self._link(target, (origin / "image").readlink().name))
                await _copy_tree(origin / "overlay" / "upper", part / "overlay" / "upper")
            else:
                await _copy_tree(origin, part)

    @asynccontextmanager
    async def _replaced(self, volume: Volume, purpose: str) -> AsyncIterator[Path]:
        """An empty folder that takes the volume's place if the block succeeds, and is gone if not."""
        path = self.path(volume)
        part = part_of(path)
        await remove_tree(part)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        async with Undo() as undo, room_in(self._pool.mount, purpose):
            undo.push(remove_tree, part)
            make_folder(part, 0o700 if volume.kind == "container" else 0o711)
            yield part
            put(part, path)
        await remove_tree(part)

    def _link(self, volume: Volume, fingerprint: str) -> Path:
        """What `image` in a volume points at."""
        depth = len(self.path(volume).relative_to(self._pool.mount).parts)
        return Path(*[".."] * depth, IMAGES, fingerprint)

    def _in_use(self, fingerprint: str) -> bool:
        """By a container, a snapshot, or what is yet to become one."""
        top, snapshots = self._pool.mount / "containers", self._pool.mount / "containers-snapshots"
        folders = [top, *(snapshots / name for name in entries(snapshots))]
        return any(_image_of(folder / name) == fingerprint for folder in folders for name in entries(folder))


def _make(path: Path, volume: Volume) -> None:
    if volume.kind == "custom":
        make_folder(path, 0o711)
        return
    make_folder(path, 0o700)
    make_folder(path / "overlay", 0o700)
    make_folder(path / "overlay" / "upper", 0o755)


def _image_of(path: Path) -> str:
    """What it stands on; "" for nothing, as of what somebody is just removing."""
    try:
        return (path / "image").readlink().name
    except OSError:
        return ""


async def _make_private(path: Path) -> None:
    make_folder(path, 0o700)


def _copy_metadata(source: Path, target: Path) -> None:
    if (source / "metadata.yaml").exists():
        shutil.copyfile(source / "metadata.yaml", target / "metadata.yaml", follow_symlinks=False)
    if (source / "templates").is_dir() and named(source / "templates"):
        shutil.copytree(source / "templates", target / "templates", symlinks=True, dirs_exist_ok=True)


async def _copy_tree(source: Path, target: Path) -> None:
    """Everything, overlay's own attributes and white-outs too; blocks shared where the file system can."""
    await run("cp", "-a", "--reflink=auto", "--no-target-directory", "--", source, target, timeout=COPY_FOR)
