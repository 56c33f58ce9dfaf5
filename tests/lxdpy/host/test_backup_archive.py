import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lxdpy.host import backup_archive
from lxdpy.host.backup_archive import (
    CUSTOM,
    END,
    CorruptBackup,
    Reader,
    entry,
    read_index,
    without_end,
    write,
)
from lxdpy.host.storage import stream


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def tarball(*members: tuple[str, bytes | str | int]) -> bytes:
    """Of files (bytes), links (text) and device nodes (numbers)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            if isinstance(content, int):
                info.type, info.devmajor = tarfile.BLKTYPE, content
            elif content.startswith("="):
                info.type, info.linkname = tarfile.LNKTYPE, content[1:]
            else:
                info.type, info.linkname = tarfile.SYMTYPE, content
            tar.addfile(info)
    return out.getvalue()


INDEX = ("backup/index.yaml", b"name: c1\n")
GOOD = tarball(
    INDEX,
    ("backup/snapshots/s0/rootfs/f", b"old" * 700),
    ("backup/container/rootfs/f", b"new"),
    ("backup/container/rootfs/twin", "=backup/container/rootfs/f"),
    ("backup/container/rootfs/passwd", "/etc/passwd"),
    ("backup/container/rootfs/sda", 8),
    ("backup/container/rootfs/" + "x" * 150, b""),
)


def sections(path: Path) -> dict[str, bytes]:
    async def go() -> dict[str, bytes]:
        reader, found = Reader(path), {}
        while (name := await reader.next()) is not None:
            found[name] = b"".join([piece async for piece in reader.chunks()])
        return found

    return asyncio.run(go())


def test_a_backup_is_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(gzip.compress(GOOD))
    assert read_index(tmp_path / "b") == b"name: c1\n"
    found = sections(tmp_path / "b")
    assert list(found) == ["s0", ""]
    asyncio.run(stream.unpack(pieces(found[""], 100), tmp_path))
    names = {path.name for path in (tmp_path / "rootfs").iterdir()}
    assert names == {"f", "twin", "passwd", "x" * 150}  # and no device
    assert (tmp_path / "rootfs/twin").samefile(tmp_path / "rootfs/f")
    assert (tmp_path / "rootfs/passwd").readlink() == Path("/etc/passwd")


def test_a_stream_of_an_optimized_backup_is_handed_on_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(
        tarball(INDEX, ("backup/snapshots/s0.bin", b"abc"), ("backup/container.bin", b"de"))
    )
    assert sections(tmp_path / "b") == {"s0": b"abc", "": b"de"}


@pytest.mark.parametrize(
    "member",
    [
        ("backup/container/../../../etc/passwd", b"x"),
        ("backup/snapshots/../container/f", b"x"),
        ("backup/container//f", b"x"),
        ("backup/container/rootfs/x", "=/etc/shadow"),
        ("backup/container/rootfs/x", "=backup/container/../../../../etc/shadow"),
        ("backup/container/rootfs/x", "=backup/snapshots/s0/rootfs/f"),
        ("backup/snapshots/s0/rootfs/again", b"x"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, member: tuple[str, bytes | str]) -> None:
    head = (INDEX, ("backup/snapshots/s0/rootfs/f", b""), ("backup/container/rootfs/g", b""))
    (tmp_path / "b").write_bytes(tarball(*head, member))
    with pytest.raises(CorruptBackup):
        sections(tmp_path / "b")


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {"none": lambda data: data, "gzip": gzip.compress}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_backup_that_is_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    """Wherever: also between two files, where tar sees no harm."""
    whole = COMPRESSED[kind](GOOD)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512 if kind == "none" else len(whole) - 512
    for length in (*range(600, end, 512), end, end + 511):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(CorruptBackup):
            sections(tmp_path / "b")


@pytest.mark.parametrize(
    "content", [b"", b"hello" * 1000, tarball(("backup/container/f", b"")), b"hsqs" * 200]
)
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(Exception, match=r"(?i)backup"):
        read_index(tmp_path / "b")


@pytest.mark.parametrize("size", [1, 511, 512, 1000, 1 << 20])
def test_tarballs_are_put_one_behind_the_other(size: int) -> None:
    one = tarball(("a", b"1" * 1000), ("x" * 200, b""), ("zeros", bytes(2048)))

    async def go() -> bytes:
        body = b"".join([piece async for piece in without_end(pieces(one, size))])
        return body + entry("b", b"22", 1.0) + END

    with tarfile.open(fileobj=io.BytesIO(asyncio.run(go()))) as tar:
        assert [(m.name, m.size) for m in tar] == [("a", 1000), ("x" * 200, 0), ("zeros", 2048), ("b", 2)]


def test_files_beyond_8_gib_are_skipped_as_their_extended_header_says() -> None:
    info = tarfile.TarInfo("big")
    info.size = 9 << 30
    head = info.tobuf(tarfile.PAX_FORMAT)
    assert b"size=9663676416" in head
    assert backup_archive._pax_size(head[512:1024].rstrip(b"\0")) == 9 << 30
    info.size = 3 << 33
    assert backup_archive._octal(info.tobuf(tarfile.GNU_FORMAT)) == 3 << 33


@pytest.mark.parametrize("compression", ["none", "gzip", "gzip 1", "zstd", "xz -0", "bzip2"])
def test_what_is_written_can_be_read(tmp_path: Path, compression: str) -> None:
    written(tmp_path, GOOD, compression)
    assert sections(tmp_path / "b")["s0"] == sections_of(GOOD, tmp_path)["s0"]


def written(folder: Path, data: bytes, compression: str) -> None:
    async def go() -> None:
        with (folder / "b").open("wb") as target:
            await write(pieces(data, 1000), target, compression)

    asyncio.run(go())


def test_a_backup_in_squashfs_is_read_in_another_order(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "squashfs")
    assert read_index(tmp_path / "b") == b"name: c1\n"
    found = sections(tmp_path / "b")
    assert list(found) == ["", "s0"]
    asyncio.run(stream.unpack(pieces(found[""], 100), tmp_path))
    assert (tmp_path / "rootfs/twin").samefile(tmp_path / "rootfs/f")
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:200])
    with pytest.raises(CorruptBackup):
        read_index(tmp_path / "b")


def test_of_a_custom_volume_the_folder_itself_counts(tmp_path: Path) -> None:
    top = tarfile.TarInfo("backup/volume")
    top.type, top.mode = tarfile.DIRTYPE, 0o2750
    files = tarball(
        ("backup/volume/f", b"new"), ("backup/volume/g", "=backup/volume/f"), ("backup/container/f", b"?")
    )
    (tmp_path / "b").write_bytes(entry(*INDEX, 1.0) + top.tobuf(tarfile.PAX_FORMAT) + files)
    (tmp_path / "v").mkdir()

    async def go() -> list[str | None]:
        reader = Reader(tmp_path / "b", CUSTOM)
        names = [await reader.next()]
        await stream.unpack(reader.chunks(), tmp_path / "v")
        return [*names, await reader.next()]

    assert asyncio.run(go()) == ["", None]
    assert (tmp_path / "v").stat().st_mode & 0o7777 == 0o2750
    assert (tmp_path / "v/g").samefile(tmp_path / "v/f")


@pytest.mark.parametrize(
    "member", [("backup/volume", "/etc"), ("backup/volume", b"x"), ("backup/volume/../f", b"x")]
)
def test_a_custom_volume_is_a_folder_and_stays_in_it(tmp_path: Path, member: tuple[str, bytes | str]) -> None:
    (tmp_path / "b").write_bytes(tarball(INDEX, member))

    async def go() -> None:
        reader = Reader(tmp_path / "b", CUSTOM)
        while await reader.next() is not None:
            async for _ in reader.chunks():
                pass

    with pytest.raises(CorruptBackup):
        asyncio.run(go())


def sections_of(data: bytes, folder: Path) -> dict[str, bytes]:
    (folder / "plain").write_bytes(data)
    return sections(folder / "plain")
