"""Facts: what is known of a card from outside sysfs."""

import msgspec

from lxdpy.host.gpu.figures import NOTHING, Figures
from lxdpy.host.gpu.health import Signs

LINKS = ("nvlink", "xgmi", "pix", "pxb", "phb", "node")
"""Kinds of link between two cards, the fastest first: NVLink and XGMI, then PCIe through one switch, several,
a host bridge, the bridges of one NUMA node."""


class Mig(msgspec.Struct, frozen=True, kw_only=True):
    """One MIG device: a part of a card with memory and processors of its own."""

    uuid: str
    profile: str  # "1g.5gb"; "": not known
    gi: int  # GPU instance
    ci: int = 0  # compute instance in it
    memory: int = 0  # bytes
    cdi: tuple[str, ...] = ()  # as of a card


class Process(msgspec.Struct, frozen=True):
    """A program that uses a card."""

    pid: int  # as this host sees it
    memory: int = 0  # bytes


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One card. Whatever is empty, 0 or None is not known."""

    uuid: str = ""
    model: str = ""
    memory: int = 0  # bytes
    architecture: str = ""  # NVIDIA: compute capability, "8.0"
    brand: str = ""
    cuda_version: str = ""
    figures: Figures = NOTHING
    cut: bool = False  # NVIDIA's MIG mode: it cannot be had whole
    mig: tuple[Mig, ...] = ()  # what it is cut into, which may be nothing yet
    links: dict[str, str] = {}  # uuid of another card -> kind of link, of LINKS
    processes: tuple[Process, ...] = ()
    signs: Signs = Signs()
