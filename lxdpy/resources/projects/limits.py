"""PURE: how much a project has of what it can be limited in, and whether that is too much.

What a sum is limited in, every instance must say how much it wants of: without that it could take any amount.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cluster.errors import Forbidden
from cluster.state.txn import State, Txn
from lxdpy.config.types import CpuSet, cpu_set, size
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.model import Project
from lxdpy.resources.storage_volumes.model import volumes

COUNTED = ("instances", "containers", "virtual-machines", "networks", "gpu")
SUMMED = ("cpu", "memory", "processes", "disk")  # over what instances are configured to have
SIZES = ("memory", "disk")


class Whole(NamedTuple):
    """An instance of the project with its profiles applied."""

    name: str
    config: Config
    devices: Devices


class Excess(NamedTuple):
    noun: str  # of COUNTED or SUMMED
    limit: str  # as it was set
    used: int

    @property
    def used_text(self) -> str:
        """Bytes as the clients show them."""
        if self.noun not in SIZES:
            return str(self.used)
        power = max((self.used.bit_length() - 1) // 10, 0)
        return f"{self.used / (1 << 10 * power):.2f}{('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[power]}B"


def instances_of(state: State | Txn, project: str) -> list[Whole]:
    rows = (row for _, row in sorted(state.rows(INSTANCES).items()) if row.project == project)
    return [Whole(row.name, *expanded(state, row)) for row in rows]


def usage(state: State | Txn, project: str, wholes: list[Whole]) -> dict[str, int]:
    """By noun; an instance or volume that does not say how much it may take counts for nothing."""
    own = list(volumes(state, project=project))
    return {
        "containers": len(wholes),
        "cpu": sum(cpus(one.config.get("limits.cpu", "")) for one in wholes),
        "disk": sum(disk(one.devices) for one in wholes) + sum(amount(v.config.get("size", "")) for v in own),
        "gpu": gpus(state, project),
        "instances": len(wholes),
        "memory": sum(amount(one.config.get("limits.memory", "")) for one in wholes),
        "networks": sum(row.project == project for row in state.rows(NETWORKS).values()),
        "processes": sum(int(one.config.get("limits.processes") or 0) for one in wholes),
        "virtual-machines": 0,
    }


def gpus(state: State | Txn, project: str) -> int:
    """Those that its instances hold; a shared one counts once for each that holds it."""
    holders = (holder for row in state.rows(GPUS).values() for holder in row.holders)
    return sum(holder.instance.startswith(f"{project}/") for holder in holders)


def limit_of(project: Project, noun: str) -> int:
    """-1 for none."""
    text = project.config.get(f"limits.{noun}", "")
    if not text:
        return -1
    return size(text) if noun in SIZES else int(text)


def check_limits(state: State | Txn, project: Project, wholes: list[Whole]) -> None:
    """Raises Forbidden when the project has more than it may have."""
    for over in excesses(state, project, wholes):
        if over.noun == "networks":
            raise Forbidden("Networks limit has been reached for project", key="limits.networks")
        if over.noun in ("instances", "containers"):
            kind = ' of type "container"' if over.noun == "containers" else ""
            what = f"number of instances{kind}"
        else:
            what = f'aggregate value "{over.limit}" for "limits.{over.noun}"'
        raise Forbidden(f'Reached maximum {what} in project "{project.name}"', key=f"limits.{over.noun}")


def excesses(state: State | Txn, project: Project, wholes: list[Whole]) -> Iterator[Excess]:
    """What there is too much of. Raises Forbidden for an instance that does not say how much it wants."""
    limited = [noun for noun in (*COUNTED, *SUMMED) if project.config.get(f"limits.{noun}")]
    for noun in limited:
        for one in wholes if noun in SUMMED else ():
            _check_said(project.name, noun, one)
        for volume in volumes(state, project=project.name) if noun == "disk" else ():
            if not volume.config.get("size"):
                which = f'"{volume.name}" in project "{project.name}"'
                raise Forbidden(f'Custom volume {which} has no "size" config set', key="size")
    used = usage(state, project.name, wholes) if limited else {}
    for noun in limited:
        if used[noun] > limit_of(project, noun):
            yield Excess(noun, project.config[f"limits.{noun}"], used[noun])


def _check_said(project: str, noun: str, one: Whole) -> None:
    which = f'"{one.name}" in project "{project}"'
    if noun == "disk":
        if not disk(one.devices):
            lacks = 'no "size" config set on the root device either directly or via a profile'
            raise Forbidden(f"Instance {which} has {lacks}", key="size")
        return
    key = f"limits.{noun}"
    text = one.config.get(key, "")
    if not text:
        raise Forbidden(f'Instance {which} has no "{key}" config, either directly or via a profile', key=key)
    if text.endswith("%"):
        raise Forbidden(f'Failed parsing "{key}" for instance {which}: "{text}" is no amount', key=key)


def cpus(text: str) -> int:
    """A count as it is; CPUs by number count one each."""
    found = cpu_set(text) if text else CpuSet()
    return found.count or len(found.cpus)


def amount(text: str) -> int:
    """Bytes; a share of the host is no amount."""
    return 0 if not text or text.endswith("%") else size(text)


def disk(devices: Devices) -> int:
    """Bytes of the root disk."""
    roots = (d for d in devices.values() if d.get("type") == "disk" and d.get("path") == "/")
    return sum(amount(root.get("size", "")) for root in roots)
