"""CDI, the Container Device Interface: what vendors' tools say that a container needs besides device files.

Specs are YAML or JSON in two folders of the host; in the later one they win. They are root's own files, and
believed. https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec
import yaml

from lxdpy.host import safe_yaml
from lxdpy.host.paths import HostRoot

log = logging.getLogger(__name__)

FOLDERS = ("/etc/cdi", "/var/run/cdi")
VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0")
KIND = r"(?:nvidia|amd|intel)\.com/[a-z]*gpu"
NAME = KIND + r"=[A-Za-z0-9](?:[A-Za-z0-9_.:-]{0,126}[A-Za-z0-9])?"
MOST = 1 << 20  # bytes of a spec; of eight cards in 56 MIG devices it has some 60,000


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """Of a spec. What is not named here cannot be done for a system container, or is of no use to it."""


class DeviceNode(Part, frozen=True, rename="camel"):
    path: str  # in the container
    host_path: str = ""  # "": the same
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class Mount(Part, frozen=True, rename="camel"):
    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


class Hook(Part, frozen=True, rename="camel"):
    hook_name: str
    path: str
    args: tuple[str, ...] = ()


class Edits(Part, frozen=True, rename="camel"):
    """What is done to a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()


class Device(Part, frozen=True, rename="camel"):
    name: str
    container_edits: Edits = Edits()


class Spec(Part, frozen=True, rename="camel"):
    """A file."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...] = ()
    container_edits: Edits = Edits()  # for each container that has one of the devices


def devices(root: HostRoot) -> dict[str, Edits]:
    """By full name (`nvidia.com/gpu=0`), all that is done for it. A bad file is logged once."""
    found: dict[str, Edits] = {}
    for folder in FOLDERS:
        for path in _files(root.at(folder)):
            try:
                status = path.stat()
            except OSError:
                continue  # it went just now
            found |= _devices(path, status.st_mtime_ns, status.st_size)
    return found


def names_with(known: dict[str, Edits], paths: Iterable[str], without: str = "") -> tuple[str, ...]:
    """Of the devices that bring one of these device files, and none whose path begins with `without`."""
    wanted = set(paths)
    return tuple(
        sorted(
            name
            for name, edits in known.items()
            if (brought := {node.host_path or node.path for node in edits.device_nodes}) & wanted
            and not (without and any(path.startswith(without) for path in brought))
        )
    )


def read(path: Path) -> Spec:
    """Raises ValueError, saying what is wrong with the file."""
    with path.open("rb") as file:
        written = file.read(MOST + 1)
    if len(written) > MOST:
        raise ValueError(f"longer than {MOST} bytes")
    try:
        spec = msgspec.convert(safe_yaml.load(written), Spec)
    except (yaml.YAMLError, msgspec.ValidationError) as wrong:
        raise ValueError(" ".join(str(wrong).split())) from None
    if spec.cdi_version not in VERSIONS:
        raise ValueError(f'cdiVersion "{spec.cdi_version}" is not one of {", ".join(VERSIONS)}')
    return spec


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    except OSError:
        return []


@lru_cache(maxsize=64)
def _devices(path: Path, changed: int, size: int) -> dict[str, Edits]:
    """Of a file in that state: members look at their GPUs every few seconds."""
    del changed, size
    try:
        spec = read(path)
    except (OSError, ValueError) as wrong:
        log.warning("CDI: %s is not used: %s", path, wrong)
        return {}
    if not re.fullmatch(KIND, spec.kind):
        return {}
    return {
        name: _joined(spec.container_edits, device.container_edits)
        for device in spec.devices
        if re.fullmatch(NAME, name := f"{spec.kind}={device.name}")
    }


def _joined(one: Edits, other: Edits) -> Edits:
    return Edits(
        env=one.env + other.env,
        device_nodes=one.device_nodes + other.device_nodes,
        mounts=one.mounts + other.mounts,
        hooks=one.hooks + other.hooks,
    )
