"""Image files on this member: `images/FINGERPRINT`, and `FINGERPRINT.rootfs` beside it if the image is split.

What is unpacked from them is kept by each storage pool for itself (`lxdpy.host.storage`).
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import BinaryIO, Self

from cluster.errors import Error, Exhausted, Invalid, NotFound
from lxdpy.host import backup_archive, image_archive
from lxdpy.host.image_metadata import CorruptImage, ImageMetadata, parse_metadata
from lxdpy.host.progress import Tell
from lxdpy.host.storage.layout import make_folder, remove_tree, there
from lxdpy.host.storage.room import FULL, room_in

CHUNK = 2**20  # bytes written at once; smaller chunks are gathered, as each costs a change of thread


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image. Unified: `rootfs` is None, and all is in `metadata`."""

    fingerprint: str
    metadata: Path
    rootfs: Path | None

    @property
    def size(self) -> int:
        """Bytes, of both files."""
        return sum(path.stat().st_size for path in (self.metadata, self.rootfs) if path)


@dataclass(frozen=True)
class Received:
    """An image that has come in whole."""

    files: ImageFiles
    metadata: ImageMetadata


class ImageStore:
    """All image files of this member, of every project."""

    def __init__(self, lxd_dir: Path) -> None:
        self.folder = lxd_dir / "images"

    def files(self, fingerprint: str) -> ImageFiles:
        """Raises NotFound: another member may have them."""
        path = self._path(fingerprint)
        rootfs = path.with_name(f"{fingerprint}.rootfs")
        if not path.is_file():
            raise NotFound(f"Image not on this member: {fingerprint}", fingerprint=fingerprint)
        return ImageFiles(fingerprint, path, rootfs if rootfs.is_file() else None)

    def has(self, fingerprint: str) -> bool:
        return self._path(fingerprint).is_file()

    def fingerprints(self) -> list[str]:
        """Of all images whose files are here."""
        if not self.folder.is_dir():
            return []
        return sorted(name for name in os.listdir(self.folder) if "." not in name)

    def upload(self) -> "Upload":
        """`async with store.upload() as upload`: nothing is left unless `finish` was reached."""
        return Upload(self.folder)

    def remove(self, fingerprint: str) -> None:
        """Idempotent."""
        path = self._path(fingerprint)
        path.unlink(missing_ok=True)  # first: with it gone the image is
        path.with_name(f"{fingerprint}.rootfs").unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove what uploads left behind that a crash cut short. Only while none is going on."""
        for path in sorted(self.folder.glob(".upload-*")):
            await remove_tree(path)

    async def unpack(self, fingerprint: str, target: Path, tell: Tell | None = None) -> None:
        """Fill the empty folder `target` with `metadata.yaml`, `rootfs/` and `templates/`.

        `tell` hears how far it is. Raises CorruptImage, or Exhausted when the disk is full; the caller then
        empties `target`.
        """
        files = self.files(fingerprint)
        await image_archive.unpack(files.metadata, target, tell)
        if files.rootfs:
            if there(target / "rootfs"):
                raise CorruptImage("Invalid image: a split image's metadata must not hold a rootfs")
            make_folder(target / "rootfs", 0o755)
            await image_archive.unpack(files.rootfs, target / "rootfs", tell)
        await asyncio.to_thread(image_archive.check_tree, target)

    def _path(self, fingerprint: str) -> Path:
        if not fingerprint.isalnum():
            raise Invalid(f'Not a fingerprint: "{fingerprint[:80]}"')
        return self.folder / fingerprint


class Upload:
    """An image on its way in: `add` each file in turn, then `finish`."""

    def __init__(self, folder: Path) -> None:
        self._images = folder
        self._folder = Path()
        self._parts: list[Path] = []
        self._hash = hashlib.sha256()

    async def __aenter__(self) -> Self:
        make_folder(self._images, 0o700)
        self._folder = Path(mkdtemp(prefix=".upload-", dir=self._images))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await remove_tree(self._folder)

    async def add(self, chunks: AsyncIterable[bytes]) -> None:
        """One file: the unified tarball; or the metadata tarball, and in a second call the root file system.

        Raises Exhausted when the disk is full.
        """
        path = self._folder / str(len(self._parts))
        self._parts.append(path)
        pending = bytearray()
        with path.open("wb", buffering=0) as file:
            async for chunk in chunks:
                pending += chunk
                if len(pending) >= CHUNK:
                    await asyncio.to_thread(self._write, file, bytes(pending))
                    pending.clear()
            await asyncio.to_thread(self._write, file, bytes(pending), last=True)

    async def pack(self, chunks: AsyncIterable[bytes], compression: str) -> None:
        """A unified tarball of our own, to be compressed yet. Raises Exhausted when the disk is full."""
        path = self._folder / str(len(self._parts))
        self._parts.append(path)
        async with room_in(self._folder, "write the image"):
            with path.open("wb", buffering=0) as file:
                await backup_archive.write(chunks, file, compression)
                await asyncio.to_thread(os.fsync, file.fileno())
        await asyncio.to_thread(self._digest, path)

    @property
    def fingerprint(self) -> str:
        """Of what has come so far."""
        return self._hash.hexdigest()

    async def finish(self, expected: str = "") -> Received:
        """Look whether it is an image, and keep it. Raises CorruptImage, or Invalid if not the `expected`."""
        fingerprint = self.fingerprint
        if expected and expected != fingerprint:
            raise Invalid(f"Image is not the one announced: {fingerprint} is not {expected}")
        metadata = await asyncio.to_thread(self._inspect)
        return Received(await asyncio.to_thread(self._keep, fingerprint), metadata)

    def _write(self, file: BinaryIO, data: bytes, *, last: bool = False) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            if last:
                os.fsync(file.fileno())
        except OSError as error:
            raise _explained(error) from None
        self._hash.update(data)

    def _digest(self, path: Path) -> None:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                self._hash.update(piece)

    def _inspect(self) -> ImageMetadata:
        match self._parts:
            case [unified]:
                found = image_archive.look_into(unified, want_rootfs=True)
                if not found.rootfs:
                    raise CorruptImage("Invalid image: it has no rootfs")
            case [metadata, rootfs]:
                found = image_archive.look_into(metadata, want_rootfs=False)
                image_archive.check_rootfs(rootfs)
            case _:
                raise Invalid(f"An image is made of one file or two, not {len(self._parts)}")
        if found.metadata is None:
            raise CorruptImage("Invalid image: it has no metadata.yaml")
        return parse_metadata(found.metadata)

    def _keep(self, fingerprint: str) -> ImageFiles:
        path = self._images / fingerprint
        rootfs = path.with_name(f"{fingerprint}.rootfs")
        if len(self._parts) == 2:
            self._parts[1].rename(rootfs)
        else:
            rootfs.unlink(missing_ok=True)
        self._parts[0].rename(path)  # last: with it there the image is
        _sync_folder(self._images)
        return ImageFiles(fingerprint, path, rootfs if len(self._parts) == 2 else None)


def _explained(error: OSError) -> Error:
    if error.errno in FULL:
        return Exhausted("No space left for the image")
    return Error(f"The image could not be written: {error.strerror}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
