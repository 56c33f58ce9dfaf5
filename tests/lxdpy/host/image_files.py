"""Images for tests: small, made on the spot, and some that are not what they should be."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import zstandard

METADATA = b"""\
architecture: amd64
creation_date: 1700000000
properties: {os: Test, release: 12, serial: 2024-01-01, empty: }
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl, properties: {}}
"""
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstandard.ZstdCompressor().compress,
}
Entry = tuple[str, bytes] | tarfile.TarInfo


def tar(*entries: Entry) -> bytes:
    """A tarball of files (name, content; a name that ends in a slash is a folder) and ready-made members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            name, content = entry
            member = owned(tarfile.TarInfo(name.rstrip("/")))
            member.mode = 0o755
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = owned(tarfile.TarInfo(name))
    member.type, member.linkname = kind, target
    return member


def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Ours: only root can make files of others'."""
    member.uid, member.gid = os.getuid(), os.getgid()
    return member


def unified(*more: Entry, metadata: bytes = METADATA) -> bytes:
    return tar(
        ("metadata.yaml", metadata),
        ("templates/", b""), ("templates/hostname.tpl", b"{{ container.name }}\n"),
        ("rootfs/", b""), ("rootfs/etc/", b""), ("rootfs/etc/issue", b"test\n"), *more,
    )  # fmt: skip


async def in_pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
