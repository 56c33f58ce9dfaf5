"""The files images come in: tar with any of the usual compressions, and squashfs.

Looking into them is done here, in a thread, and stops as soon as enough was seen; unpacking and packing by
tar and unsquashfs, which are fast and know xattrs, ACLs and device nodes. GNU tar strips leading slashes,
refuses `..`, and makes links that lead out of the folder only when all else is in place, so nothing is
written through them. unsquashfs refuses names with `..` or slashes, and names that come twice.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any, NamedTuple, cast

import zstandard

from cluster.errors import Invalid, Unsupported
from lxdpy.config.types import compression as compressor
from lxdpy.host.image_metadata import LARGEST, CorruptImage
from lxdpy.host.progress import Tell, reading
from lxdpy.host.run import CommandFailed, run
from lxdpy.host.storage.room import room_in
from lxdpy.host.undo import Undo

UNPACK_FOR = 3600.0  # seconds; a 10 GB image on a slow disk
READ_AHEAD = 2**20  # bytes

MAGIC = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x5d\0\0", "lzma"), (b"hsqs", "squashfs"),
)  # fmt: skip
DECOMPRESS = {"gzip": "gzip", "bzip2": "bzip2", "xz": "xz -T0", "zstd": "zstd", "lzma": "xz"}
"""What tar runs, adding `-d` itself."""
ATTRIBUTES = (
    "--numeric-owner", "--acls",
    "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability",
)  # fmt: skip
"""What a file carries besides its mode. Not trusted.*: overlayfs would obey it."""

UNREADABLE = (
    tarfile.TarError, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, ValueError,
    UnicodeDecodeError,
)  # fmt: skip


class Contents(NamedTuple):
    """What a look into a tarball has found."""

    metadata: bytes | None
    rootfs: bool


def kind_of(path: Path) -> str:
    """A compression of tar (`none` for none), or `squashfs`. Raises CorruptImage for anything else."""
    with path.open("rb") as file:
        head = file.read(512)
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "none"
    raise CorruptImage("Invalid image: neither a tarball, compressed or not, nor squashfs")


def look_into(path: Path, *, want_rootfs: bool) -> Contents:
    """Read a tarball until metadata.yaml, and `rootfs` if wanted, are found. Blocks. Raises CorruptImage."""
    metadata, rootfs = None, False
    try:
        with _tarball(path) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                rootfs = rootfs or name.partition("/")[0] == "rootfs"
                if name == "metadata.yaml":
                    metadata = _read(tar, member)
                if metadata is not None and (rootfs or not want_rootfs):
                    break
    except UNREADABLE as error:
        raise CorruptImage(f"Invalid image: the tarball is damaged ({type(error).__name__})") from None
    return Contents(metadata, rootfs)


def check_rootfs(path: Path) -> None:
    """Whether a split image's second file can be one. Blocks. Raises CorruptImage."""
    if kind_of(path) == "squashfs":
        with path.open("rb") as file:
            head = file.read(96)
        if len(head) < 96 or struct.unpack_from("<Q", head, 40)[0] > path.stat().st_size:
            raise CorruptImage("Invalid image: the squashfs file is cut short")
        return
    try:
        with _tarball(path) as tar:
            tar.next()
    except UNREADABLE as error:
        raise CorruptImage(f"Invalid image: the tarball is damaged ({type(error).__name__})") from None


async def unpack(archive: Path, target: Path, tell: Tell | None = None) -> None:
    """Unpack into the folder `target`, which exists; `tell` hears how far it is.

    Raises CorruptImage, or Exhausted when it is full.
    """
    kind = kind_of(archive)
    if kind == "squashfs":
        words = ["unsquashfs", "-no-progress", "-force", "-dest", os.fspath(target), os.fspath(archive)]
    else:
        words = ["tar", "--extract", "--preserve-permissions", "--same-owner", "--force-local", *ATTRIBUTES]
        words += [f"--use-compress-program={DECOMPRESS[kind]}"] if kind != "none" else []
        words += [f"--directory={target}", f"--file={archive}"]
    try:
        async with room_in(target, "unpack the image"), reading(archive, tell):
            await run(*words, timeout=UNPACK_FOR)
    except CommandFailed as failure:
        if failure.facts.get("status"):
            raise CorruptImage(f"Invalid image: cannot be unpacked: {failure.message}") from None
        raise


async def pack(folder: Path, target: Path, compression: str = "gzip", *, names: tuple[str, ...] = ()) -> None:
    """Write the image in `folder`, or only `names` of it, to the tarball or squashfs file `target`.

    `compression` is what `images.compression_algorithm` takes: a compressor with its options, or `none`.
    Raises Invalid for another, Unsupported if its program is missing; if it fails `target` is removed.
    """
    words = _packing(folder, target, compression, names or _parts_in(folder))
    async with Undo() as undo:
        undo.push(target.unlink, missing_ok=True)
        async with room_in(target.parent, "pack the image"):
            await run(*words, timeout=UNPACK_FOR)


def _parts_in(folder: Path) -> tuple[str, ...]:
    """The parts of an image; an instance's folder holds more. metadata.yaml first: readers may stop there."""
    return tuple(name for name in ("metadata.yaml", "rootfs", "templates") if (folder / name).exists())


def _packing(folder: Path, target: Path, compression: str, names: tuple[str, ...]) -> list[str]:
    try:
        compressor(compression)  # tar hands it to a shell
    except ValueError as wanted:
        raise Invalid(f'Unknown compression "{compression[:80]}": not {wanted}') from None
    program, _, options = compression.partition(" ")
    if program in ("squashfs", "tar2sqfs"):
        sources = [os.fspath(folder / name) for name in names]
        return [
            "mksquashfs",
            *sources,
            os.fspath(target),
            "-noappend",
            "-no-progress",
            "-quiet",
            *options.split(),
        ]
    words = ["tar", "--create", "--sort=name", "--force-local", "--warning=no-file-ignored", *ATTRIBUTES]
    if program != "none":
        options = f"-{options}" if options.isdigit() else options
        words.append(f"--use-compress-program={f'{program} {options}'.strip()}")
    return [*words, f"--directory={folder}", f"--file={target}", "--", *names]


@contextlib.contextmanager
def _tarball(path: Path) -> Iterator[tarfile.TarFile]:
    kind = kind_of(path)
    with (
        path.open("rb") as file,
        contextlib.closing(decompressed(kind, file)) as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=READ_AHEAD) as tar,
    ):
        yield tar


def decompressed(kind: str, file: IO[bytes]) -> IO[bytes]:
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        "none": lambda file: file,
        "gzip": lambda file: gzip.GzipFile(fileobj=file),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
        "lzma": lzma.LZMAFile,
        "zstd": lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True),
        "squashfs": Squashed,
    }
    return cast(IO[bytes], openers[kind](file))


class Squashed:
    """A squashfs file, read as a tarball in the order of names. Raises Unsupported without the program."""

    def __init__(self, file: IO[bytes]) -> None:
        words = ["sqfs2tar", "--no-skip", f"/dev/fd/{file.fileno()}"]
        try:
            self._child = Popen(words, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, pass_fds=(file.fileno(),))
        except FileNotFoundError:
            raise Unsupported("Program not installed: sqfs2tar", program="sqfs2tar") from None

    def read(self, size: int = -1) -> bytes:
        assert self._child.stdout is not None
        piece = self._child.stdout.read(size)
        if not piece and self._child.wait():
            raise EOFError("the squashfs file cannot be read")
        return piece

    def close(self) -> None:
        """Also before its end."""
        assert self._child.stdout is not None
        self._child.kill()
        self._child.stdout.close()
        self._child.wait()


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or member.size > LARGEST:
        raise CorruptImage("Invalid image: metadata.yaml is not a file of reasonable size")
    return content.read()


def check_tree(folder: Path) -> None:
    """Whether an unpacked image holds what it must, and nothing in its place. Blocks. Raises CorruptImage.

    The host reads these by path: a link to /etc in place of `rootfs` would make the host's files the image.
    """
    for name, is_right, what in (
        ("metadata.yaml", stat.S_ISREG, "file"),
        ("rootfs", stat.S_ISDIR, "folder"),
    ):
        try:
            mode = (folder / name).lstat().st_mode
        except FileNotFoundError:
            raise CorruptImage(f"Invalid image: it has no {name}") from None
        if not is_right(mode):
            raise CorruptImage(f"Invalid image: {name} is not a {what}")
    templates = folder / "templates"
    if os.path.lexists(templates):
        if not stat.S_ISDIR(templates.lstat().st_mode):
            raise CorruptImage("Invalid image: templates is not a folder")
        if odd := [entry.name for entry in os.scandir(templates) if not entry.is_file(follow_symlinks=False)]:
            raise CorruptImage(f"Invalid image: template {odd[0]} is not a file")
