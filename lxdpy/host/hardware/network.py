"""Network cards and their ports. Source: /sys/class/net, and PCI's class 02 for cards without a driver.

What only ethtool's ioctls tell (supported modes, auto-negotiation, transceivers) is left at its default.
"""

from collections import defaultdict
from pathlib import Path

import msgspec

from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.hardware.files import (
    driver,
    entries,
    kernel_release,
    numa_node,
    number,
    pci_address,
    text,
    usb_address,
)
from lxdpy.host.paths import HostRoot

PROTOCOLS = {1: "ethernet", 32: "infiniband"}  # ARPHRD_* of linux/if_arp.h
NETWORK_CLASS = "0x02"
NO_SPEED = 2**31  # what some drivers say when there is no link


class Infiniband(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    issm_name: str = ""
    issm_device: str = ""
    mad_name: str = ""
    mad_device: str = ""
    verb_name: str = ""
    verb_device: str = ""


class Port(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    port: int
    protocol: str
    auto_negotiation: bool
    link_detected: bool
    address: str = ""
    link_speed: int = 0  # Mbit/s
    link_duplex: str = ""
    infiniband: Infiniband | None = None


class Sriov(msgspec.Struct, frozen=True, kw_only=True):
    current_vfs: int
    maximum_vfs: int
    vfs: tuple["Card", ...] = ()


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    numa_node: int
    driver: str = ""
    driver_version: str = ""
    ports: tuple[Port, ...] = ()
    sriov: Sriov | None = None
    pci_address: str = ""
    usb_address: str = ""
    vendor: str = ""
    vendor_id: str = ""
    product: str = ""
    product_id: str = ""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesNetwork."""

    cards: tuple[Card, ...]
    total: int  # cards and their virtual functions


def network(root: HostRoot, ids: PciIds | None = None) -> Network:
    names = ids or PciIds.of_this_host()
    ports: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in entries(root.sys / "class/net"):
        if (path / "device").exists():
            ports[(path / "device").resolve()].append(path)
    seen = {pci_address(device) for device in ports}
    for path in entries(root.sys / "bus/pci/devices"):
        if text(path / "class").startswith(NETWORK_CLASS) and path.name not in seen:
            ports[path.resolve()] = []
    release = kernel_release(root.proc)
    cards = {device: _card(device, ports[device], names, release) for device in ports}
    parents = {device: (device / "physfn").resolve() for device in cards if (device / "physfn").exists()}
    children: defaultdict[Path, list[Card]] = defaultdict(list)
    for device, parent in parents.items():
        children[parent].append(cards[device])
    top = tuple(
        _with_functions(card, device, tuple(children[device]))
        for device, card in cards.items()
        if parents.get(device) not in cards
    )
    return Network(cards=top, total=len(cards))


def _card(device: Path, ports: list[Path], names: PciIds, release: str) -> Card:
    pci = pci_address(device)
    # A virtio NIC hangs on the PCI device that has the ids; a USB one has ids of another kind.
    card = next((folder for folder in (device, *device.parents) if folder.name == pci), device)
    usb = usb_address(device)
    name, version = driver(device, release)
    vendor, product = (text(card / field).removeprefix("0x") for field in ("vendor", "device"))
    return Card(
        numa_node=numa_node(device),
        driver=name,
        driver_version=version,
        ports=tuple(_port(path, device) for path in ports),
        pci_address="" if usb else pci,
        usb_address=usb,
        vendor="" if usb else names.vendor(vendor),
        vendor_id="" if usb else vendor,
        product="" if usb else names.product(vendor, product),
        product_id="" if usb else product,
    )


def _with_functions(card: Card, device: Path, functions: tuple[Card, ...]) -> Card:
    if not (device / "sriov_numvfs").exists():
        return card
    sriov = Sriov(
        current_vfs=number(device / "sriov_numvfs"),
        maximum_vfs=number(device / "sriov_totalvfs"),
        vfs=functions,
    )
    return msgspec.structs.replace(card, sriov=sriov)


def _port(path: Path, device: Path) -> Port:
    speed = number(path / "speed")
    protocol = PROTOCOLS.get(number(path / "type"), "unknown")
    up = text(path / "carrier") == "1"
    duplex = text(path / "duplex")
    return Port(
        id=path.name,
        port=number(path / "dev_port"),
        protocol=protocol,
        auto_negotiation=False,
        link_detected=up,
        address=text(path / "address"),
        link_speed=speed if up and 0 < speed < NO_SPEED else 0,
        link_duplex=duplex if up and duplex in ("full", "half") else "",
        infiniband=_infiniband(device) if protocol == "infiniband" else None,
    )


def _infiniband(device: Path) -> Infiniband:
    mads = {entry.name: text(entry / "dev") for entry in entries(device / "infiniband_mad")}
    mad = next((name for name in mads if name.startswith("umad")), "")
    issm = next((name for name in mads if name.startswith("issm")), "")
    verb = next((entry for entry in entries(device / "infiniband_verbs")), None)
    return Infiniband(
        issm_name=issm,
        issm_device=mads.get(issm, ""),
        mad_name=mad,
        mad_device=mads.get(mad, ""),
        verb_name=verb.name if verb else "",
        verb_device=text(verb / "dev") if verb else "",
    )
