"""Value types of config keys. Config values are strings on the wire; a parser gives what the string means.

A parser raises ValueError whose text completes the sentence "<value> is not …", so that whoever checks a
config can say what would be right. Parsers never see the empty string: that is "unset".
"""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from lxdpy.config.times import cron as cron
from lxdpy.config.times import duration as duration
from lxdpy.config.times import expiry as expiry
from lxdpy.config.times import snapshot_pattern as snapshot_pattern

Parse = Callable[[str], object]

UNITS = {
    "": 1, "B": 1, "bytes": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60,
}  # fmt: skip
BIT_UNITS = {
    "": 1, "bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12, "Pbit": 10**15,
    "Ebit": 10**18, "Kibit": 2**10, "Mibit": 2**20, "Gibit": 2**30, "Tibit": 2**40, "Pibit": 2**50,
    "Eibit": 2**60,
}  # fmt: skip
LARGEST = 2**63 - 1  # bytes; sizes are signed 64-bit numbers on the wire
ARCHITECTURES = ("x86_64", "aarch64", "armv7l", "i686", "ppc64le", "s390x", "riscv64")


class Percent(msgspec.Struct, frozen=True):
    """A share of something the parser does not know, in hundredths."""

    value: int


class CpuSet(msgspec.Struct, frozen=True):
    """CPUs of a host: so many of them, or these."""

    count: int = 0  # 0: `cpus` names them
    cpus: frozenset[int] = frozenset()


class Allowance(msgspec.Struct, frozen=True):
    """CPU time: a share when CPUs are contended (`quota` 0), or `quota` of every `period`, both in µs."""

    percent: int = 100
    quota: int = 0
    period: int = 0


def text(value: str) -> str:
    """Anything at all."""
    return value


def boolean(value: str) -> bool:
    """LXD's spellings, in any case."""
    match value.lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise ValueError("a boolean (true or false)")


def integer(low: int | None = None, high: int | None = None) -> Parse:
    """A whole number within the bounds, both included."""
    bounds = {
        (True, True): "a whole number",
        (False, True): f"a whole number of at least {low}",
        (True, False): f"a whole number of at most {high}",
        (False, False): f"a whole number from {low} to {high}",
    }[low is None, high is None]

    def parse(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", value):
            raise ValueError(bounds)
        number = int(value)
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(bounds)
        return number

    return parse


def one_of(*choices: str) -> Parse:
    """Exactly one of these words."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return parse


def either(*parses: Parse) -> Parse:
    """The first of the types that takes the value."""

    def parse(value: str) -> object:
        wanted = []
        for candidate in parses:
            try:
                return candidate(value)
            except ValueError as refusal:
                wanted.append(str(refusal))
        raise ValueError(" or ".join(wanted))

    return parse


def matching(pattern: str, what: str) -> Parse:
    """Text that the regular expression matches whole; `what` names it for the user ("a PCI address")."""
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(what)
        return value

    return parse


def list_of(item: Parse, separator: str = ",") -> Parse:
    """A tuple of items, blanks around each dropped."""

    def parse(value: str) -> tuple[object, ...]:
        try:
            return tuple(item(part.strip()) for part in value.split(separator))
        except ValueError as refusal:
            raise ValueError(f"a list (by {separator!r}) of which each is {refusal}") from None

    return parse


def _scaled(value: str, units: dict[str, int], what: str) -> int:
    found = re.fullmatch(r"([0-9]{1,19})(?:\.0+)? ?([A-Za-z]*)", value)
    if not found or found[2] not in units:
        raise ValueError(what)
    number = int(found[1]) * units[found[2]]
    if number > LARGEST:
        raise ValueError(f"{what}, at most 8EiB")
    return number


def size(value: str) -> int:
    """Bytes, from `512MiB`, `10GB`, `4096`; kB is 1000, KiB is 1024."""
    return _scaled(value, UNITS, "a size, such as 512MiB or 10GB")


def percent(value: str) -> Percent:
    """`0%` to `100%`."""
    if not re.fullmatch(r"[0-9]{1,3}%", value) or int(value[:-1]) > 100:
        raise ValueError("a percentage from 0% to 100%")
    return Percent(int(value[:-1]))


size_or_percent = either(size, percent)


def memory_limit(value: str) -> object:
    """A size or a share; none of it at all is no limit."""
    found = size_or_percent(value)
    if found in (0, Percent(0)):
        raise ValueError("a limit: unset it for none")
    return found


def bit_rate(value: str) -> int:
    """Bits a second, from `100Mbit`."""
    return _scaled(value, BIT_UNITS, "a rate in bits a second, such as 100Mbit")


def disk_rate(value: str) -> tuple[int, str]:
    """A number and what it counts a second: ("bytes" or "iops")."""
    if found := re.fullmatch(r"([0-9]{1,18})iops", value):
        return int(found[1]), "iops"
    return _scaled(value, UNITS, "a rate such as 30MB or 500iops"), "bytes"


def cpu_set(value: str) -> CpuSet:
    """`4` is any four CPUs; `0-3,8` and `2-2` are CPUs by number."""
    if re.fullmatch(r"[0-9]{1,5}", value):
        if int(value) < 1:
            raise ValueError("a CPU count of at least 1 or a set such as 0-3,8")
        return CpuSet(count=int(value))
    return CpuSet(cpus=number_set(value))


def number_set(value: str) -> frozenset[int]:
    """Numbers and ranges: `0-3,8`."""
    numbers: set[int] = set()
    for part in value.split(","):
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip())
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError("a count or a set such as 0-3,8")
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(numbers)


def cpu_allowance(value: str) -> Allowance:
    """`50%` is a soft share; `25ms/100ms` a hard one."""
    if found := re.fullmatch(r"([0-9]{1,4})%", value):
        return Allowance(percent=int(found[1]))
    if found := re.fullmatch(r"([0-9]{1,9})ms/([0-9]{1,9})ms", value):
        quota, period = int(found[1]) * 1000, int(found[2]) * 1000
        if quota and period:
            return Allowance(quota=quota, period=period)
    raise ValueError("a CPU allowance: a share (50%) or a time slice (25ms/100ms)")


def listen_address(value: str) -> tuple[str, int | None]:
    """Host and port, from `:8443`, `10.0.0.1:8443`, `[fd00::1]:8443`, `n1.example`; no port is None."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]*)(?::([0-9]{1,5}))?", value)
    if not found and _is_address(value):
        return value, None
    if not found or (found[2] and not 0 < int(found[2]) < 65536):
        raise ValueError("an address to listen on, such as :8443 or 10.0.0.1:8443")
    host = found[1].strip("[]")
    if found[1].startswith("[") and not _is_address(host):
        raise ValueError("an address to listen on, such as [::]:8443")
    return host, int(found[2]) if found[2] else None


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def address(version: int | None = None) -> Parse:
    """One IP address, of that version if one is given."""
    what = f"an IPv{version} address" if version else "an IP address"

    def parse(value: str) -> str:
        if not _is_address(value) or (version and ip_address(value).version != version):
            raise ValueError(what)
        return value

    return parse


def cidr(version: int | None = None) -> Parse:
    """An address with its prefix length, `10.0.0.1/24`."""
    what = f"an IPv{version or ''} address with a prefix length".replace("IPv ", "IP ")

    def parse(value: str) -> str:
        try:
            found = ip_interface(value)
        except ValueError:
            raise ValueError(what) from None
        if "/" not in value or (version and found.version != version):
            raise ValueError(what)
        return value

    return parse


def yaml_mapping(value: str) -> object:
    """A document that maps names, or an empty one."""
    with suppress(msgspec.MsgspecError, RecursionError):
        return msgspec.yaml.decode(value, type=dict[Any, Any] | None)
    raise ValueError("a YAML document that maps names to values")


mac_address = matching(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", "a MAC address")
interface_name = matching(
    r"(?!\.{1,2}$)[^/\s:]{2,15}", "a network interface name (2 to 15 characters, no slash, colon or blank)"
)
architecture = one_of(*ARCHITECTURES)
absolute_path = matching(r"/[^\x00]*", "an absolute path")
volume_path = matching(r"[^/\s]+/[^/\s]+", "a volume, as pool/volume")
url = matching(r"https?://[^\s]+", "an http or https address")
compression = matching(
    r"none|(?:bzip2|gzip|lz4|lzma|pigz|pzstd|xz|zstd|squashfs|tar2sqfs)(?: -{1,2}[A-Za-z0-9=_-]+| [0-9]+)*",
    "a compressor: none, gzip, pigz, xz, lzma, bzip2, lz4, zstd, pzstd or squashfs, with its options",
)
