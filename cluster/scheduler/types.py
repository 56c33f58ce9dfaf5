"""What the scheduler is asked and what it sees: asks, views, placements."""

from typing import Literal

import msgspec

Kind = Literal["physical", "mig"]
Sharing = Literal["exclusive", "shared"]
GpuState = Literal["free", "exclusive", "shared", "partitioned", "draining", "missing", "conflict"]
Scheduling = Literal["all", "group", "manual"]

LINKS: dict[str, int] = {"nvlink": 100, "xgmi": 100, "pix": 20, "pxb": 10, "phb": 5, "node": 2}
"""Closeness by kind of link; only the order of magnitude matters: NVLink is about five times PCIe."""
SAME_NUMA_NODE = 1  # closeness of two GPUs of one NUMA node, on top of their links


class Term(msgspec.Struct, frozen=True):
    """One condition on a GPU: `memory>=40GiB`. See `match.py` for what there is."""

    attribute: str
    operator: str
    value: str

    def __str__(self) -> str:
        quoted = f'"{self.value}"' if " " in self.value else self.value
        return f"{self.attribute}{self.operator}{quoted}"


class GpuAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What one device of an instance wants: `count` GPUs, or MIG devices, that fulfil all terms.

    Count 0 is the meaning of LXD's own selectors: every GPU of the member that fulfils the terms, shared.
    """

    device: str
    count: int = 1
    kind: Kind = "physical"
    match: tuple[Term, ...] = ()
    sharing: Sharing = "exclusive"
    memory: int = 0  # bytes: reserved on each GPU when shared, least size of each GPU when exclusive
    uuids: tuple[str, ...] = ()  # only these will do
    prefer: tuple[str, ...] = ()  # these if they are to be had: those held before
    held: tuple[str, ...] = ()  # these it holds now: it may keep what nobody would be granted anew


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance wants of a member."""

    architecture: str = ""  # "": any
    gpus: tuple[GpuAsk, ...] = ()
    group: str | None = None  # cluster group it must be in
    target: str | None = None  # member named by the user: that one or none
    only: dict[str, tuple[str, ...]] = {}  # what it needs that some members have: in words, their names
    cpus: int = 0  # only for ranking; members may be overcommitted, as in LXD
    memory: int = 0  # bytes, likewise


class Hold(msgspec.Struct, frozen=True):
    """One holder of a GPU."""

    holder: str  # who it is, in words for users
    sharing: Sharing
    memory: int = 0  # bytes reserved


class GpuView(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, or MIG device, as the scheduler sees it."""

    uuid: str
    vendor: str
    model: str = ""
    memory: int = 0  # bytes; 0: unknown
    driver: str = ""
    driver_version: str = ""
    pci: str = ""
    numa: int = -1  # -1: unknown
    drm: str = ""  # number of the DRM card, LXD's `id`; "": none
    vendor_id: str = ""
    product_id: str = ""
    links: tuple[tuple[str, int], ...] = ()  # uuid of another GPU, closeness; see LINKS
    health: str = "ok"
    reason: str = ""  # why it is not
    state: GpuState = "free"
    holders: tuple[Hold, ...] = ()
    parent: str = ""  # uuid of the card that this MIG device is a part of; "": a card
    profile: str = ""  # of a MIG device: "1g.5gb"
    gi: int = -1
    ci: int = -1
    cdi: tuple[str, ...] = ()  # names as a CDI device: "nvidia.com/gpu=0"

    @property
    def kind(self) -> Kind:
        return "mig" if self.parent else "physical"


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """One member as the scheduler sees it."""

    name: str
    online: bool = True
    evacuated: bool = False
    scheduling: Scheduling = "all"
    groups: tuple[str, ...] = ("default",)
    architecture: str = ""
    instances: int = 0
    gpus: tuple[GpuView, ...] = ()
    cpus: int = 0
    cpus_used: int = 0
    memory: int = 0  # bytes
    memory_used: int = 0  # bytes asked for by the instances it has


class Placement(msgspec.Struct, frozen=True):
    """Where an instance goes, and for each of its GPU devices the GPUs it gets."""

    member: str
    gpus: dict[str, tuple[str, ...]] = {}


def pci_address(written: str) -> str:
    """The one spelling of a PCI address, `0000:07:00.0`; users and tools write it in four ways."""
    parts = written.strip().lower().split(":")
    if len(parts) == 2:
        parts.insert(0, "0000")
    if len(parts) != 3:
        return ":".join(parts)
    domain, bus, device = parts
    return f"{domain.lstrip('0').rjust(4, '0')}:{bus}:{device}"
