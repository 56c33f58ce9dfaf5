"""The unpacked images of a pool: one folder each, there whole or not at all, whoever asks first."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from lxdpy.host.storage.driver import Pool, Unpack
from lxdpy.host.storage.layout import IMAGES, entries, image_path, named, need, part_of, remove_tree, sync
from lxdpy.host.storage.room import room_in
from lxdpy.host.undo import Undo

PathStep = Callable[[Path], Awaitable[None]]


class ImageCache:
    """`make` and `remove` are the driver's way to an empty folder and back; both idempotent."""

    def __init__(self, pool: Pool, make: PathStep, remove: PathStep) -> None:
        self._pool = pool
        self._make = make
        self._remove = remove
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def path(self, fingerprint: str) -> Path:
        return image_path(self._pool, fingerprint)

    async def ensure(self, fingerprint: str, unpack: Unpack) -> None:
        """Unpack it unless that was done. Two that ask at once wait for one unpacking."""
        target = self.path(fingerprint)
        async with self._locks[fingerprint]:
            self._unwanted(fingerprint).unlink(missing_ok=True)
            if target.exists():
                return
            part = part_of(target)
            await self._remove(part)  # of a daemon that died while unpacking
            async with Undo() as undo, room_in(self._pool.mount, "unpack the image"):
                undo.push(remove_tree, part)  # file by file: btrfs frees a subvolume half a minute later
                await self._make(part)
                await unpack(part)
                await sync(part)
                part.rename(target)

    @asynccontextmanager
    async def held(self, fingerprint: str) -> AsyncIterator[Path]:
        """The image's folder, which is not deleted meanwhile. Raises NotFound."""
        async with self._locks[fingerprint]:
            yield need(self.path(fingerprint), "Image")

    async def delete(self, fingerprint: str, in_use: Callable[[str], bool]) -> None:
        """Remove it, or if it is in use mark it, so that `sweep` does once it is not.

        At once as far as anybody can see: what is left of it, should that take no end, is no image.
        """
        path = self.path(fingerprint)
        async with self._locks[fingerprint]:
            if path.exists() and in_use(fingerprint):
                self._unwanted(fingerprint).touch()
                return
            await self._remove(part_of(path))
            if path.exists():
                path.rename(part_of(path))
            self._unwanted(fingerprint).unlink(missing_ok=True)
            await self._remove(part_of(path))

    async def clean(self) -> None:
        """Remove what a daemon that died had not yet unpacked, or removed, to the end."""
        folder = self._pool.mount / IMAGES
        for name in entries(folder):
            if name.startswith(".") and name.endswith(".part"):
                await self._remove(folder / name)

    async def sweep(self, in_use: Callable[[str], bool]) -> None:
        """Remove the images that were deleted while in use, and are not any more."""
        folder = self._pool.mount / IMAGES
        for mark in sorted(folder.glob(".*.unwanted")):
            await self.delete(mark.name[1:].removesuffix(".unwanted"), in_use)

    def wanted(self) -> list[str]:
        fingerprints = named(self._pool.mount / IMAGES)
        return [fingerprint for fingerprint in fingerprints if not self._unwanted(fingerprint).exists()]

    def _unwanted(self, fingerprint: str) -> Path:
        return self.path(fingerprint).with_name(f".{fingerprint}.unwanted")
