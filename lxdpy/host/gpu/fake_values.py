"""The values in the file of `--fake-gpus`: how each key's is read, and what it must be."""

import re
from collections.abc import Callable
from typing import Any, get_args

from cluster.errors import Invalid
from lxdpy.config.types import size
from lxdpy.host.gpu.drm import pci_address
from lxdpy.host.gpu.facts import LINKS, Process
from lxdpy.host.gpu.fake_products import MACHINES, PRODUCTS
from lxdpy.host.gpu.health import Health, Remapping

MOST = 64  # cards of a host: as many as DRM has minor numbers for
Readers = dict[str, tuple[Callable[[Any], Any], str]]


def checked(entry: Any, readers: Readers, where: str) -> dict[str, Any]:
    """The values of a mapping, each read by its reader."""
    if not isinstance(entry, dict):
        raise Invalid(f'{where}: must be a mapping such as {{vendor: nvidia, count: 2}}, not "{entry}"')
    if unknown := sorted(str(key) for key in entry if key not in readers):
        raise Invalid(f'{where}: unknown key "{unknown[0]}"; known are: {", ".join(readers)}', key=unknown[0])
    found = {}
    for key, value in entry.items():
        read, what = readers[key]
        try:
            found[key] = read(value)
        except (ValueError, TypeError, AttributeError):
            raise Invalid(f'{where}: {key}: "{value}" is not {what}', key=key, value=str(value)) from None
    return found


def _matching(pattern: str, normal: Callable[[str], str] = str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, normal(value)):
            raise ValueError
        return normal(value)

    return read


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return read


def _memory(value: Any) -> int:
    found = size(str(value))
    if not 0 < found < 2**50:
        raise ValueError
    return found


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError
    return float(value)


def _profiles(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_matching(r"[1-7]g\.[0-9]{1,3}gb(\+me)?")(profile) for profile in value)


def _yes(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _processes(value: Any) -> tuple[Process, ...]:
    if not isinstance(value, list) or any(set(one) - {"pid", "memory"} for one in value):
        raise TypeError
    return tuple(
        Process(_whole(1, 2**22)(one.get("pid")), _memory(one.get("memory", "1MiB"))) for one in value
    )


def _links(value: Any) -> dict[str, str]:
    if not set(value.values()) <= set(LINKS):
        raise ValueError
    return {UUID(other): kind for other, kind in value.items()}


UUID = _matching(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
FAULTS: Readers = {
    "health": (_matching("|".join(get_args(Health))), f"one of {', '.join(get_args(Health))}"),
    "xid": (_whole(0, 999), "an XID, 0 to 999"),
    "ecc": (_whole(0, 10**9), "a number of errors"),
    "remapped": (_matching("|".join(get_args(Remapping))), "pending or failed"),
    "lost": (_yes, "true or false"),
    "gone": (_yes, "true or false"),
    "busy": (_share, "a share from 0 to 1"),
    "processes": (_processes, "a list such as [{pid: 4711, memory: 2GiB}]"),
}
SIGNS = ("health", "xid", "ecc", "remapped", "lost")
READERS: Readers = {
    "vendor": (_matching("|".join(PRODUCTS)), f"one of {', '.join(PRODUCTS)}"),
    "profile": (_matching("|".join(MACHINES)), f"one of {', '.join(MACHINES)}"),
    "count": (_whole(0, MOST), f"a whole number from 0 to {MOST}"),
    "model": (_matching(r"[^\x00-\x1f/]{1,100}"), "a model's name"),
    "memory": (_memory, "a size such as 40GiB"),
    "pci": (
        _matching(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", pci_address),
        'a PCI address in quotes such as "0000:07:00.0"',
    ),
    "uuid": (UUID, "a name of letters, digits, dots, colons, dashes"),
    "numa": (_whole(-1, 1023), "a NUMA node, -1 to 1023"),
    "mig": (_profiles, "a list of MIG profiles such as [1g.5gb, 2g.10gb]"),
    "links": (_links, f"a mapping from another GPU's uuid to one of {', '.join(LINKS)}"),
    **FAULTS,
}
WHOLE: Readers = {
    "nvml": (_yes, "true or false"),
    "cdi": (_yes, "true or false"),
    "boot": (_whole(0, 10**6), "a whole number"),
}
"""Of the file as a whole, besides its lists."""
