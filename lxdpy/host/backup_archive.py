"""Backups in LXD's layout: a tarball, compressed or not.

    backup/index.yaml             what is in it; first
    backup/snapshots/NAME/…       the files of each snapshot, oldest first
    backup/container/…            the instance's: backup.yaml, metadata.yaml, templates/, rootfs/
    backup/snapshots/NAME.bin     in their place, streams of `btrfs send`, each on top of the one before;
    backup/container.bin          `backup/optimized_header.yaml` then lists them

Those of custom volumes have `volume` and `volume-snapshots` in their place.

One that is read may come from anybody. Names are taken apart here, not by tar; device nodes are left out;
what is left goes to a tar that knows one volume only, and keeps within its folder (see `image_archive`).
"""

import asyncio
import contextlib
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cluster.errors import Invalid
from lxdpy.host import pipe
from lxdpy.host.image_archive import READ_AHEAD, UNREADABLE, decompressed, kind_of
from lxdpy.host.image_metadata import CorruptImage

INDEX = "backup/index.yaml"
HEADER = "backup/optimized_header.yaml"
LARGEST_INDEX = 1 << 24  # bytes: thousands of snapshots
BLOCK = 512  # bytes of tar
PIECE = 1 << 20  # bytes handed on at once
KEPT = (
    tarfile.REGTYPE,
    tarfile.AREGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
MAIN = ""  # the section of the instance itself; others are named by snapshots


class Layout(NamedTuple):
    """What the folders of a backup are called."""

    main: str
    snapshots: str
    top: bool  # whether the folders themselves have an owner and a mode that count

    def below(self, snapshot: str) -> str:
        """Where the files of a section stand; "" for those that are no snapshot's."""
        return f"backup/{self.snapshots}/{snapshot}" if snapshot else f"backup/{self.main}"


INSTANCE = Layout("container", "snapshots", top=False)
CUSTOM = Layout("volume", "volume-snapshots", top=True)


class CorruptBackup(Invalid):
    """It is no backup, or not all of one."""


def entry(name: str, data: bytes, moment: float) -> bytes:
    """A file of the daemon's own, as it stands in a tarball."""
    return header(name, len(data), moment) + data + bytes(-len(data) % BLOCK)


def header(name: str, size: int, moment: float) -> bytes:
    """What stands in front of so many bytes; they must be followed by zeros up to a whole block."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o400, int(moment)
    return info.tobuf(tarfile.PAX_FORMAT)


END = bytes(2 * BLOCK)


async def without_end(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """A tarball without the blocks that end it, so that another may follow."""
    buffer, left, size = (
        bytearray(),
        0,
        0,
    )  # left: bytes of the current file; size: as a header before it says
    async for chunk in chunks:
        buffer += chunk
        out = bytearray()
        while True:
            if left:
                out += buffer[:left]
                gone = min(left, len(buffer))
                left -= gone
                del buffer[:gone]
                if left:
                    break
            if len(buffer) < BLOCK or not any(buffer[:BLOCK]):
                break
            head = bytes(buffer[:BLOCK])
            told = _octal(head)
            if head[156:157] == b"x":
                whole = BLOCK + told + -told % BLOCK
                if len(buffer) < whole:
                    break
                size = _pax_size(bytes(buffer[BLOCK : BLOCK + told]))
                left = whole
            else:
                length = size or told
                left, size = BLOCK + length + -length % BLOCK, 0
        if out:
            yield bytes(out)


def _octal(head: bytes) -> int:
    """The size in a header; beyond 8 GiB, GNU's binary form."""
    field = head[124:136]
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _pax_size(records: bytes) -> int:
    """The size in an extended header, 0 if it says none."""
    while records:
        length = int(records.split(b" ", 1)[0])
        keyword, _, value = records[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
        if keyword == b"size":
            return int(value)
        records = records[length:]
    return 0


async def write(chunks: AsyncIterable[bytes], target: IO[bytes], compression: str) -> None:
    """All of them into an open file. `compression` is a compressor with its options, or `none`.

    Raises Unsupported if its program is not installed.
    """
    program, _, options = compression.partition(" ")
    if program == "none":
        async for chunk in chunks:
            await asyncio.to_thread(target.write, chunk)
        return
    words = [f"-{options}" if options.isdigit() else options] if options else []
    if program in ("squashfs", "tar2sqfs"):
        await pipe.feed(chunks, "tar2sqfs", "--force", "--quiet", *words, target.name)
        return
    await pipe.feed(chunks, program, "-c", *" ".join(words).split(), stdout=target)


def read_index(path: Path) -> bytes:
    """`backup/index.yaml`. Blocks. Raises CorruptBackup."""
    with _opened(path) as (tar, _):
        for member in tar:
            if member.name == INDEX and member.isreg() and member.size <= LARGEST_INDEX:
                content = tar.extractfile(member)
                if content is not None:
                    return content.read()
            if kind_of(path) != "squashfs":  # that has no order of its own
                break
    raise CorruptBackup("Backup is missing index.yaml")


class Reader:
    """Goes through a backup once, section by section: `while (name := await reader.next()) is not None`."""

    def __init__(self, path: Path, layout: Layout = INSTANCE) -> None:
        self._pieces = _pieces(path, layout)
        self._ahead: tuple[str, bytes] | None = None
        self._seen: set[str] = set()

    async def next(self) -> str | None:
        """The next section's name, whose `chunks` are to be read then; None at the end."""
        if self._ahead is None:
            await self._read()
        if self._ahead is None:
            return None
        name = self._ahead[0]
        if name in self._seen:
            raise CorruptBackup("Invalid backup: its parts are mixed up")
        self._seen.add(name)
        return name

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """A tarball of the section's files, as if packed in its folder; or the stream of an optimized one."""
        assert self._ahead is not None
        name = self._ahead[0]
        while self._ahead is not None and self._ahead[0] == name:
            yield self._ahead[1]
            await self._read()

    async def _read(self) -> None:
        self._ahead = await asyncio.to_thread(next, self._pieces, None)

    async def close(self) -> None:
        await asyncio.to_thread(self._pieces.close)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, "Whole"]]:
    try:
        kind = kind_of(path)
        with path.open("rb") as file, contextlib.closing(decompressed(kind, file)) as plain:
            whole = Whole(plain)
            with tarfile.open(fileobj=whole, mode="r|", bufsize=READ_AHEAD) as tar:  # type: ignore[call-overload]
                yield tar, whole
    except CorruptImage:
        raise CorruptBackup("Not a backup: neither a tarball, compressed or not") from None
    except UNREADABLE as error:
        raise CorruptBackup(f"Invalid backup: it is damaged or cut short ({type(error).__name__})") from None


class Whole:
    """A tarball being read. Where one is cut off between two files, tarfile takes that for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._tail = b""

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._tail = (self._tail + piece)[-len(END) :]
        return piece

    def check(self) -> None:
        """To be called when all has been read. Raises CorruptBackup."""
        while self.read(READ_AHEAD):
            pass
        if self._tail != END:
            raise CorruptBackup("Invalid backup: it is cut short")


def _pieces(path: Path, layout: Layout) -> Generator[tuple[str, bytes], None, None]:
    """Sections' names with bytes of a tarball each. Blocks. Raises CorruptBackup."""
    with _opened(path) as (tar, whole):
        for member in tar:
            where = section(member.name, layout)
            if where is None or member.type in DEVICES:
                continue
            name, inside, binary = where
            if not binary:
                yield name, _renamed(member, member.name, inside, layout)
            yield from ((name, piece) for piece in _content(tar, member, padded=not binary))
        whole.check()


def section(name: str, layout: Layout = INSTANCE) -> tuple[str, str, bool] | None:
    """Section, path inside it, whether that is a stream of btrfs. None for what belongs to none."""
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if ".." in parts or "" in parts:
        raise CorruptBackup(f'Invalid backup: a name leads elsewhere: "{name[:200]}"')
    if parts == ["backup", f"{layout.main}.bin"]:
        return MAIN, "", True
    if parts[:2] == ["backup", layout.main]:
        return _inside(MAIN, parts[2:], layout)
    if parts[:2] == ["backup", layout.snapshots] and len(parts) == 3 and parts[2].endswith(".bin"):
        return parts[2].removesuffix(".bin"), "", True
    if parts[:2] == ["backup", layout.snapshots] and len(parts) > 2:
        return _inside(parts[2], parts[3:], layout)
    if len(parts) == 2 and parts[0] == "backup" and parts[1].endswith(".bin"):
        raise CorruptBackup("Invalid backup: subvolumes inside an instance are not supported")
    return None


def _inside(name: str, parts: list[str], layout: Layout) -> tuple[str, str, bool] | None:
    """The folder of a section is one of its files, if it counts."""
    if not parts and not layout.top:
        return None
    return name, "/".join(parts) or ".", False


def _renamed(member: tarfile.TarInfo, name: str, inside: str, layout: Layout) -> bytes:
    """The header of a member under its name inside the section."""
    if member.type not in KEPT or member.issparse():
        raise CorruptBackup(f'Invalid backup: neither file, folder nor link: "{name[:200]}"')
    if inside == "." and not member.isdir():
        raise CorruptBackup(f'Invalid backup: not a folder: "{name[:200]}"')
    member.name = inside
    if member.islnk():
        here, target = section(name, layout), section(member.linkname, layout)
        if target is None or here is None or target[0] != here[0]:
            raise CorruptBackup(f'Invalid backup: a hard link leads elsewhere: "{name[:200]}"')
        member.linkname = target[1]
    member.pax_headers = {
        key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.")
    }
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, *, padded: bool) -> Iterator[bytes]:
    if not member.isreg() or not member.size:
        return
    content = tar.extractfile(member)
    assert content is not None
    done = 0
    while piece := content.read(PIECE):
        done += len(piece)
        yield piece
    if done != member.size:
        raise CorruptBackup("Invalid backup: it is cut short")
    if padded:
        yield bytes(-member.size % BLOCK)
