"""The GPUs of this host that can be given to instances, and the device files that go with them."""

import os
import stat

import msgspec

from lxdpy.host.gpu import amd, cdi, drm, nvidia, probe
from lxdpy.host.gpu.drm import Card
from lxdpy.host.gpu.facts import Facts, Mig, Process
from lxdpy.host.gpu.figures import NOTHING, Figures
from lxdpy.host.gpu.health import Health, Signs, judged
from lxdpy.host.gpu.nvidia import Information
from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.paths import HostRoot

DRIVERS = ("nvidia", "amdgpu", "i915", "xe")
"""A card bound to anything else is no GPU to give away: vfio-pci keeps it for virtual machines; ast, mgag200,
hibmc, bochs, cirrus, virtio and vmwgfx drive consoles."""

VENDORS = {"10de": "nvidia", "1002": "amd", "8086": "intel"}


class Node(msgspec.Struct, frozen=True):
    """A device file. `path` is where a container sees it, `source` where this host has it."""

    path: str
    major: int
    minor: int
    source: str


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. `uuid` is its identity; its indices and addresses are only where it is today."""

    uuid: str  # NVIDIA's UUID, AMD's unique_id, else member and PCI address
    vendor: str  # nvidia, amd, intel
    model: str
    memory: int  # bytes; 0: unknown
    driver: str
    driver_version: str
    pci_address: str
    vendor_id: str
    product_id: str
    numa_node: int = -1
    drm_id: str = ""  # of its DRM card; what LXD calls `id`
    minor: int = -1  # of /dev/nvidiaN
    signs: Signs = Signs()
    figures: Figures = NOTHING
    processes: tuple[Process, ...] = ()  # that are known of
    cut: bool = False  # into MIG devices: it cannot be given whole
    mig: tuple[Mig, ...] = ()
    links: dict[str, str] = {}  # uuid of another GPU -> kind of link, of facts.LINKS
    nodes: tuple[Node, ...] = ()
    cdi: tuple[str, ...] = ()  # names of the CDI devices that bring it whole: "nvidia.com/gpu=0"

    @property
    def health(self) -> Health:
        """By the signs of now alone."""
        return judged(self.signs).health


def discover(root: HostRoot, member: str) -> tuple[Gpu, ...]:
    """All GPUs below `root`, by PCI address. `member` names those that have no number of their own.

    Virtual functions are parts of their parent, not counted. Cards without a device file cannot be used.
    """
    said, known = nvidia.information(root), probe.facts(root)
    ids = PciIds.of_this_host()
    found = []
    for card in drm.cards(root):
        if not card.address or card.driver not in DRIVERS or card.parent:
            continue
        nodes = _nodes(root, card, said.get(card.address))
        if nodes:
            facts = known.get(card.address, Facts())
            found.append(_gpu(root, card, nodes, said.get(card.address), facts, ids, member))
    linked = _linked(root, tuple(sorted(found, key=lambda gpu: gpu.pci_address)))
    specs = cdi.devices(root)
    return tuple(_named(root, gpu, specs) for gpu in linked) if specs else linked


def mig_nodes(root: HostRoot, gpu: Gpu, part: Mig) -> tuple[Node, ...]:
    """Device files of a MIG device: its card's, and its two capabilities'."""
    names = [f"nvidia{gpu.minor}"]
    names += [f"nvidia-caps/nvidia-cap{number}" for number in nvidia.capabilities(root, gpu.minor, part)]
    return tuple(node for name in names if (node := _node(root, name)))


def _named(root: HostRoot, gpu: Gpu, specs: dict[str, cdi.Edits]) -> Gpu:
    """With the names that CDI specs have for the card, and for its MIG devices."""
    own = {node.path for node in gpu.nodes}
    parts = tuple(
        msgspec.structs.replace(
            part,
            cdi=cdi.names_with(specs, {node.path for node in mig_nodes(root, gpu, part)} - own),
        )
        for part in gpu.mig
    )
    return msgspec.structs.replace(
        gpu, mig=parts, cdi=cdi.names_with(specs, own, "/dev/nvidia-caps/" if parts else "")
    )


def control_nodes(root: HostRoot, vendors: frozenset[str] | None = None) -> tuple[Node, ...]:
    """Device files that every holder of a GPU of these vendors needs besides the GPU's own; None is all."""
    names: tuple[str, ...] = ()
    if vendors is None or "nvidia" in vendors:
        names += nvidia.CONTROL
    if vendors is None or "amd" in vendors:
        names += ("kfd",)
    return tuple(node for name in names if (node := _node(root, name)))


def _gpu(
    root: HostRoot,
    card: Card,
    nodes: tuple[Node, ...],
    said: Information | None,
    facts: Facts,
    ids: PciIds,
    member: str,
) -> Gpu:
    own = amd.unique_id(card) if card.driver == "amdgpu" else ""
    minor = said.minor if said else -1
    return Gpu(
        uuid=facts.uuid or (said.uuid if said else "") or own or f"{member}-{card.address}",
        vendor=VENDORS.get(card.vendor_id, card.vendor_id),
        model=facts.model or (said.model if said else "") or _model(card, ids),
        memory=facts.memory or _memory(card),
        driver=card.driver,
        driver_version=(nvidia.driver_version(root) if card.driver == "nvidia" else "")
        or card.driver_version,
        pci_address=card.address,
        vendor_id=card.vendor_id,
        product_id=card.product_id,
        numa_node=card.numa,
        drm_id=card.drm,
        minor=minor,
        signs=_signs(card, facts),
        figures=amd.figures(card) if card.driver == "amdgpu" else facts.figures,
        processes=facts.processes,
        cut=facts.cut or (minor >= 0 and nvidia.is_cut(root, minor)),
        mig=facts.mig or (nvidia.mig_devices(root, minor, said.uuid) if said and minor >= 0 else ()),
        links=facts.links,
        nodes=nodes,
    )


def _signs(card: Card, facts: Facts) -> Signs:
    ecc = amd.uncorrected(card) if card.driver == "amdgpu" else 0
    return msgspec.structs.replace(facts.signs, ecc=max(ecc, facts.signs.ecc))


def _model(card: Card, ids: PciIds) -> str:
    """What users call it; without a name at least what they can look up."""
    named = drm.text(card.path / "product_name") or ids.product(card.vendor_id, card.product_id)
    return (
        named or f"{VENDORS.get(card.vendor_id, card.vendor_id).upper()} [{card.vendor_id}:{card.product_id}]"
    )


def _memory(card: Card) -> int:
    """i915 tells that of discrete cards; xe tells none, and integrated ones have none of their own."""
    if card.driver == "amdgpu":
        return amd.memory(card)
    return drm.number(card.path / "drm" / card.card / "lmem_total_bytes") if card.card else 0


def _nodes(root: HostRoot, card: Card, said: Information | None) -> tuple[Node, ...]:
    """The card's own device files; none if it lacks the one that computes."""
    render = _node(root, f"dri/{card.render}") if card.render else None
    own = _node(root, f"nvidia{said.minor}") if said and said.minor >= 0 and card.driver == "nvidia" else None
    if not (own if card.driver == "nvidia" else render):
        return ()
    rest = [_node(root, f"dri/{name}") for name in (card.card, card.control) if name]
    return tuple(node for node in (own, *rest, render) if node)


def _node(root: HostRoot, name: str) -> Node | None:
    """The character device of that name, if there is one."""
    source = root.dev / name
    try:
        status = source.stat()
    except OSError:
        return None
    if not stat.S_ISCHR(status.st_mode):
        return None
    return Node(f"/dev/{name}", os.major(status.st_rdev), os.minor(status.st_rdev), str(source))


def _linked(root: HostRoot, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """With the links of AMD's cards, which the kernel knows by address."""
    by_address = amd.links(root)
    uuid = {gpu.pci_address: gpu.uuid for gpu in gpus}
    return tuple(
        msgspec.structs.replace(
            gpu, links={uuid[other]: kind for other, kind in found.items() if other in uuid} | gpu.links
        )
        if (found := by_address.get(gpu.pci_address))
        else gpu
        for gpu in gpus
    )
