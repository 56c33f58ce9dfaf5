"""The files of an image as one body: as a client gets them, and as another server does."""

from collections.abc import Iterator
from pathlib import Path

from lxdpy.host.image_archive import kind_of
from lxdpy.host.images import ImageFiles

SUFFIX = {
    "gzip": ".tar.gz",
    "xz": ".tar.xz",
    "zstd": ".tar.zst",
    "bzip2": ".tar.bz2",
    "squashfs": ".squashfs",
}
PIECE = 1 << 20  # bytes of a file read at once
BOUNDARY = "lxdpy-image-part"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
END = f"--{BOUNDARY}--\r\n".encode()

Parts = list[tuple[str, str, Path]]  # name, file name, file


def parts_of(files: ImageFiles) -> Parts:
    """Of a split image."""
    assert files.rootfs is not None
    name = files.fingerprint
    return [
        ("metadata", f"meta-{name}{suffix(files.metadata)}", files.metadata),
        ("rootfs", f"{name}{suffix(files.rootfs)}", files.rootfs),
    ]


def filename_of(files: ImageFiles) -> str:
    """What clients save a unified image as."""
    return f"{files.fingerprint}{suffix(files.metadata)}"


def suffix(path: Path) -> str:
    return SUFFIX.get(kind_of(path), ".tar")


def length_of(parts: Parts) -> int:
    return sum(len(_head(name, file)) + path.stat().st_size + 2 for name, file, path in parts) + len(END)


def pieces_of(parts: Parts) -> Iterator[bytes]:
    """Blocks for as long as a piece takes to read."""
    for name, file, path in parts:
        yield _head(name, file)
        yield from content_of(path)
        yield b"\r\n"
    yield END


def content_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece


def _head(name: str, file: str) -> bytes:
    return (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
