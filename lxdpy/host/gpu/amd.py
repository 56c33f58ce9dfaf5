"""What AMD's driver tells of its cards: memory, a number of their own, XGMI links."""

import re

from lxdpy.host.gpu.drm import Card, names, number, text
from lxdpy.host.gpu.figures import Figures
from lxdpy.host.paths import HostRoot

XGMI = 11  # `type` of an io_link in the kernel's kfd topology; 2 is PCIe


def memory(card: Card) -> int:
    """Bytes of VRAM."""
    return number(card.path / "mem_info_vram_total")


def figures(card: Card) -> Figures:
    """In the driver's hwmon: temperature in m°C, power in µW; the first sensor is the card's edge."""
    busy, used = _said(card, "gpu_busy_percent"), _said(card, "mem_info_vram_used")
    sensors = next((f"hwmon/{name}" for name in names(card.path / "hwmon")), "hwmon")
    heat, power = _said(card, f"{sensors}/temp1_input"), _said(card, f"{sensors}/power1_average")
    return Figures(
        busy=None if busy is None else min(busy, 100) / 100,
        memory_used=used,
        temperature=None if heat is None else heat / 1000,
        power=None if power is None else power / 1_000_000,
    )


def _said(card: Card, name: str) -> int | None:
    said = text(card.path / name)
    return int(said) if said.isdigit() else None


def unique_id(card: Card) -> str:
    """Burnt into the chip, 16 hex digits; empty for the many consumer cards that have none."""
    found = text(card.path / "unique_id").lower()
    return "" if not found.strip("0") else found


def uncorrected(card: Card) -> int:
    """Errors of its memory that were not corrected, since the driver was loaded; of all its parts."""
    found = 0
    for name in names(card.path / "ras"):
        if name.endswith("_err_count"):
            said = re.search(r"^ue: ([0-9]+)$", text(card.path / "ras" / name), re.MULTILINE)
            found += int(said[1]) if said else 0
    return found


def links(root: HostRoot) -> dict[str, dict[str, str]]:
    """By PCI address, the addresses of the cards it is linked to by XGMI."""
    topology = root.sys / "class/kfd/kfd/topology/nodes"
    address = {name: _address(_properties(text(topology / name / "properties"))) for name in names(topology)}
    found: dict[str, dict[str, str]] = {}
    for name, own in address.items():
        for link in names(topology / name / "io_links"):
            said = _properties(text(topology / name / "io_links" / link / "properties"))
            other = address.get(str(said.get("node_to", -1)), "")
            if own and other and said.get("type") == XGMI:
                found.setdefault(own, {})[other] = "xgmi"
    return found


def _properties(written: str) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.split() for line in written.splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def _address(properties: dict[str, int]) -> str:
    """`location_id` is bus, device and function as PCI packs them; CPUs are nodes too, without SIMD units."""
    if not properties.get("simd_count"):
        return ""
    domain, location = properties.get("domain", 0), properties.get("location_id", 0)
    return f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
