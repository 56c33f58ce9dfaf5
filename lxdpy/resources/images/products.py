"""PURE: what a simplestreams server says it has: its index, and the products that the index leads to.

A product is an image of one architecture, under its aliases; it has versions, and a version has items: a file
of metadata, and beside it the root file system in one form or another, or all in one file. The fingerprint of
an image of two files is noted at its metadata, for each form. Nothing of it is believed: what does not fit is
passed over, paths lead nowhere but below the server's own address, and what is downloaded is checked against
size and fingerprint.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from cluster.errors import Error, Invalid
from lxdpy.host.image_metadata import ALIASES

INDEX = "streams/v1/index.json"
DATATYPE = "image-downloads"
FINGERPRINT = re.compile("[0-9a-f]{64}")
START = re.compile("[0-9a-f]{12,64}")  # of a fingerprint that a request may name it by
LARGEST = 2**36  # bytes of one file: 64 GiB
METADATA = ("lxd.tar.xz", "incus.tar.xz")
UNIFIED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")


class File(NamedTuple):
    part: str  # metadata, rootfs
    path: str  # below the server's address
    size: int


class Found(NamedTuple):
    """An image that a server has."""

    fingerprint: str
    files: tuple[File, ...]
    alias: str = ""  # by which it was found; "": by its fingerprint
    architecture: str = ""
    properties: dict[str, str] = {}
    expires: str = ""  # RFC 3339
    filename: str = ""


class Stream(msgspec.Struct):
    datatype: str = ""
    path: str = ""


class Index(msgspec.Struct):
    index: dict[str, Stream]


class Products(msgspec.Struct):
    products: dict[str, msgspec.Raw]


class Product(msgspec.Struct):
    arch: str
    versions: msgspec.Raw
    aliases: str = ""
    os: str = ""
    release: str = ""
    release_title: str = ""
    variant: str = ""
    version: str = ""
    support_eol: str = ""
    lxd_requirements: dict[str, Any] = {}

    @property
    def architecture(self) -> str:
        """The kernel's name of it."""
        return ALIASES.get(self.arch, self.arch)

    def is_named(self, alias: str, architecture: str) -> bool:
        """An alias alone means the image for `architecture`; with `/<arch>` behind it, that one's."""
        names = {name.strip() for name in self.aliases.split(",")}
        if alias in names:
            return self.architecture == architecture
        start, slash, arch = alias.rpartition("/")
        return bool(slash) and start in names and arch in (self.arch, self.architecture)


class Item(msgspec.Struct):
    ftype: str
    path: str
    size: int = 0
    sha256: str = ""
    combined_sha256: str = ""
    combined_rootxz_sha256: str = ""
    combined_squashfs_sha256: str = ""


class Version(msgspec.Struct):
    items: dict[str, msgspec.Raw]
    label: str = ""


def paths_of(text: bytes) -> list[str]:
    """Where the server has its lists of products. Raises Error."""
    index = _decoded(text, Index)
    return [_checked(stream.path) for stream in index.index.values() if stream.datatype == DATATYPE]


def products_of(text: bytes) -> Iterator[Product]:
    """Those that can be read. Raises Error."""
    for raw in _decoded(text, Products).products.values():
        if (product := _read(raw, Product)) is not None:
            yield product


def newest(product: Product, alias: str) -> Found | None:
    """The newest version that is an image for containers."""
    versions = _read(product.versions, dict[str, msgspec.Raw]) or {}
    for serial in sorted(versions, reverse=True):
        for found in _images(product, serial, versions[serial]):
            return found._replace(alias=alias)
    return None


def starting(product: Product, fingerprint: str) -> Iterator[Found]:
    """All its images whose fingerprints begin so."""
    if fingerprint.encode() not in bytes(product.versions):
        return
    for serial, raw in (_read(product.versions, dict[str, msgspec.Raw]) or {}).items():
        yield from (one for one in _images(product, serial, raw) if one.fingerprint.startswith(fingerprint))


def _images(product: Product, serial: str, raw: msgspec.Raw) -> Iterator[Found]:
    """Of one version, squashfs before tarballs, as it is unpacked faster."""
    version = _read(raw, Version)
    if version is None:
        return
    items = [item for one in version.items.values() if (item := _read(one, Item)) is not None]
    by_type = {item.ftype: item for item in items if _is_sound(item)}
    for fingerprint, parts in _forms(by_type):
        if FINGERPRINT.fullmatch(fingerprint):
            yield Found(
                fingerprint,
                tuple(File(part, item.path, item.size) for part, item in parts),
                architecture=product.architecture,
                properties=_properties(product, serial, version.label, parts[-1][1].ftype),
                expires=f"{product.support_eol}T00:00:00Z" if product.support_eol else "",
                filename=parts[-1][1].path.rpartition("/")[2],
            )


def _forms(items: dict[str, Item]) -> Iterator[tuple[str, list[tuple[str, Item]]]]:
    metadata = next((items[kind] for kind in METADATA if kind in items), None)
    if metadata is not None and "squashfs" in items:
        parts = [("metadata", metadata), ("rootfs", items["squashfs"])]
        yield metadata.combined_squashfs_sha256, parts
    if metadata is not None and "root.tar.xz" in items:
        parts = [("metadata", metadata), ("rootfs", items["root.tar.xz"])]
        yield metadata.combined_rootxz_sha256 or metadata.combined_sha256, parts
    for kind in UNIFIED:
        if kind in items:
            yield items[kind].sha256, [("rootfs", items[kind])]


def _properties(product: Product, serial: str, label: str, kind: str) -> dict[str, str]:
    """As LXD has them of such images, whose root file system is of that `kind`."""
    words = (product.os, product.release_title or product.release, product.arch)
    marks = [f"({mark})" for mark in (label, serial) if mark]
    said = {
        "architecture": product.arch,
        "description": " ".join([word for word in words if word] + marks),
        "label": label,
        "os": product.os,
        "release": product.release,
        "serial": serial,
        "type": kind,
        "variant": product.variant,
        "version": product.version,
    }
    needs = product.lxd_requirements.items()
    said |= {f"requirements.{key}": value for key, value in needs if isinstance(value, str)}
    return {key: value for key, value in said.items() if value}


def _is_sound(item: Item) -> bool:
    try:
        _checked(item.path)
    except Error:
        return False
    return 0 < item.size <= LARGEST


def _checked(path: str) -> str:
    """Raises Invalid for one that leads elsewhere."""
    parts = path.split("/")
    if not path.isprintable() or not path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise Invalid(f'The server names a path that is not its own: "{path[:80]}"')
    return path


def address_of(server: str, path: str) -> str:
    """Of what is at `path` below the server's address."""
    return f"{server.rstrip('/')}/{quote(path, safe='/:~+=,@')}"


def _read(raw: msgspec.Raw, kind: type[Any]) -> Any:
    """None for what does not fit."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _decoded(text: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Error(f"The server's answer is none of a simplestreams server: {error}") from None
