"""What two servers tell each other before files are sent, and after: LXD's messages, in their wire form.

The source offers (`Header`), the target answers by another; then files are sent; in the end the target says
what became of it (`Verdict`). Facts are from LXD's migrate.proto; `whole` is ours, and LXD overlooks it.
"""

from typing import Any

import msgspec

from lxdpy.host.rsync import Features
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.remotes.protobuf import decode, encode, number, parts, text, texts

RSYNC = 0  # how files are sent; LXD knows others, and all of it knows this
RUNS = 2  # LXD's "criu": the source runs, so its files are sent a second time
WHOLE = 1000  # number of a field that LXD does not have
AGREED = ("xattrs", "delete", "compress", "bidirectional")  # LXD's, in the order of their numbers
ARCHITECTURES = {
    1: "i686", 2: "x86_64", 3: "armv7l", 4: "aarch64", 5: "ppc", 6: "ppc64", 7: "ppc64le", 8: "s390x",
    9: "mips", 10: "mips64", 11: "riscv32", 12: "riscv64",
}  # fmt: skip


class Part(msgspec.Struct, frozen=True):
    """A snapshot, of an instance or a volume."""

    name: str
    config: Config = {}
    devices: Devices = {}
    profiles: tuple[str, ...] = ()
    ephemeral: bool = False
    architecture: str = ""
    stateful: bool = False
    created_at: float = 0.0
    used_at: float = 0.0
    expires_at: float = 0.0  # 0: never


class Header(msgspec.Struct, frozen=True):
    features: Features = Features()
    fs: int = RSYNC
    runs: bool = False
    idmap: tuple[dict[str, Any], ...] = ()  # of the files as they come: entries as LXD writes them
    names: tuple[str, ...] = ()  # of snapshots
    snapshots: tuple[Part, ...] = ()
    refresh: bool = False


class Verdict(msgspec.Struct, frozen=True):
    success: bool
    message: str = ""


def write(header: Header) -> bytes:
    features = header.features
    agreed = encode((at, bool(getattr(features, name))) for at, name in enumerate(AGREED, 1))
    return encode(
        [
            (1, header.fs),
            (2, RUNS if header.runs else None),
            *((3, _write_range(entry)) for entry in header.idmap),
            *((4, name) for name in header.names),
            *((5, _write_part(part)) for part in header.snapshots),
            (7, False),
            (8, agreed),
            (9, header.refresh),
            (WHOLE, features.whole or None),
        ]
    )


def read(data: bytes) -> Header:
    """Raises Malformed."""
    fields = decode(data)
    agreed = decode((parts(fields, 8) or [b""])[-1])
    said = {name: bool(number(agreed, at)) for at, name in enumerate(AGREED, 1)}
    return Header(
        features=Features(**said, whole=bool(number(fields, WHOLE))),
        fs=number(fields, 1),
        runs=number(fields, 2, -1) == RUNS,
        idmap=tuple(_read_range(entry) for entry in parts(fields, 3)),
        names=tuple(texts(fields, 4)),
        snapshots=tuple(_read_part(part) for part in parts(fields, 5)),
        refresh=bool(number(fields, 9)),
    )


def common(offered: Features, ours: Features) -> Features:
    """What both know."""
    return Features(*(getattr(offered, name) and getattr(ours, name) for name in Features.__struct_fields__))


def write_verdict(verdict: Verdict) -> bytes:
    return encode([(1, verdict.success), (2, verdict.message)])


def read_verdict(data: bytes) -> Verdict:
    """Raises Malformed."""
    fields = decode(data)
    return Verdict(bool(number(fields, 1)), text(fields, 2))


def is_verdict(data: bytes) -> bool:
    """Whether it is one, where a header could be. Raises Malformed."""
    return any(isinstance(value, bytes) for value in decode(data).get(2, ()))


def _write_range(entry: dict[str, Any]) -> bytes:
    names = ("Isuid", "Isgid", "Hostid", "Nsid", "Maprange")
    return encode([(at, entry[name]) for at, name in enumerate(names, 1)])


def _read_range(data: bytes) -> dict[str, Any]:
    fields = decode(data)
    return {
        "Isuid": bool(number(fields, 1)),
        "Isgid": bool(number(fields, 2)),
        "Hostid": number(fields, 3) % (1 << 32),
        "Nsid": number(fields, 4) % (1 << 32),
        "Maprange": number(fields, 5) % (1 << 32),
    }


def _write_part(part: Part) -> bytes:
    codes = {name: code for code, name in ARCHITECTURES.items()}
    devices = (encode([(1, name), *_pairs(2, options)]) for name, options in part.devices.items())
    return encode(
        [
            (1, part.name),
            *_pairs(2, part.config),
            *((3, profile) for profile in part.profiles),
            (4, part.ephemeral),
            *((5, device) for device in devices),
            (6, codes.get(part.architecture, 0)),
            (7, part.stateful),
            (8, int(part.created_at)),
            (9, int(part.used_at)),
            (10, int(part.expires_at)),
        ]
    )


def _read_part(data: bytes) -> Part:
    fields = decode(data)
    devices = (decode(device) for device in parts(fields, 5))
    return Part(
        name=text(fields, 1),
        config=_map(fields, 2),
        profiles=tuple(texts(fields, 3)),
        ephemeral=bool(number(fields, 4)),
        devices={text(device, 1): _map(device, 2) for device in devices},
        architecture=ARCHITECTURES.get(number(fields, 6), ""),
        stateful=bool(number(fields, 7)),
        created_at=float(max(0, number(fields, 8))),  # Go's zero time is long before 1970
        used_at=float(max(0, number(fields, 9))),
        expires_at=float(max(0, number(fields, 10))),
    )


def _pairs(number: int, values: Config) -> list[tuple[int, bytes]]:
    return [(number, encode([(1, key), (2, value)])) for key, value in sorted(values.items())]


def _map(fields: Any, which: int) -> Config:
    pairs = (decode(pair) for pair in parts(fields, which))
    return {text(pair, 1): text(pair, 2) for pair in pairs}
