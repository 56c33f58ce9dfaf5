"""The `gpu` part of GET /1.0/resources, in LXD's shape.

All display devices are listed, also those no instance can be given (consoles' cards, cards kept for virtual
machines): that is what LXD does and what its clients show. What can be given is `inventory.discover`.
"""

from pathlib import Path
from typing import Any

from lxdpy.host.gpu import nvidia, probe
from lxdpy.host.gpu.drm import Card, cards, names, number, text
from lxdpy.host.gpu.facts import Facts
from lxdpy.host.gpu.nvidia import Information
from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.paths import HostRoot


def resources(root: HostRoot, ids: PciIds | None = None) -> dict[str, Any]:
    """`{cards, total}`. Virtual functions stand below their parent's `sriov`, and are counted too."""
    ids = ids or PciIds.of_this_host()
    said, known = nvidia.information(root), probe.facts(root)
    found = cards(root)
    listed = {
        card.path: _card(root, card, ids, said.get(card.address), known.get(card.address, Facts()))
        for card in found
    }
    for card in found:
        parent = next((other for other in found if card.parent and other.address == card.parent), None)
        if parent and "sriov" in listed[parent.path]:
            listed[parent.path]["sriov"]["vfs"].append(listed.pop(card.path))
    top = list(listed.values())
    return {"cards": top, "total": len(top) + sum(len(card.get("sriov", {}).get("vfs", ())) for card in top)}


def _card(root: HostRoot, card: Card, ids: PciIds, said: Information | None, facts: Facts) -> dict[str, Any]:
    """One card; what is empty is left out, but for the NUMA node."""
    optional: dict[str, Any] = {
        "driver": card.driver,
        "driver_version": card.driver_version,
        "drm": _drm(card),
        "sriov": _sriov(card.path),
        "nvidia": _nvidia(root, said, facts) if said else {},
        "mdev": _mdev(card.path),
        "pci_address": card.address,
        "vendor": ids.vendor(card.vendor_id),
        "vendor_id": card.vendor_id,
        "product": ids.product(card.vendor_id, card.product_id),
        "product_id": card.product_id,
        "usb_address": card.usb,
    }
    return _filled(optional) | {"numa_node": max(card.numa, 0)}


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _drm(card: Card) -> dict[str, Any]:
    if not card.card:
        return {}
    named = {"id": int(card.drm), "card_name": card.card, "card_device": card.device(card.card)}
    for kind, name in (("control", card.control), ("render", card.render)):
        named |= _filled({f"{kind}_name": name, f"{kind}_device": card.device(name) if name else ""})
    return named


def _nvidia(root: HostRoot, said: Information, facts: Facts) -> dict[str, Any]:
    return {
        "brand": facts.brand,
        "model": facts.model or said.model,
        "card_name": f"nvidia{said.minor}",
        "card_device": f"195:{said.minor}",
    } | _filled(
        {
            "cuda_version": facts.cuda_version,
            "nvrm_version": nvidia.driver_version(root),
            "uuid": facts.uuid or said.uuid,
            "architecture": facts.architecture,
        }
    )


def _sriov(path: Path) -> dict[str, Any]:
    if not (path / "sriov_numvfs").exists():
        return {}
    return {
        "current_vfs": number(path / "sriov_numvfs"),
        "maximum_vfs": number(path / "sriov_totalvfs"),
        "vfs": [],
    }


def _mdev(path: Path) -> dict[str, Any]:
    types = path / "mdev_supported_types"
    return {
        kind: {
            "api": text(types / kind / "device_api"),
            "available": number(types / kind / "available_instances"),
            "devices": names(types / kind / "devices"),
        }
        | _filled({"name": text(types / kind / "name"), "description": text(types / kind / "description")})
        for kind in names(types)
    }
