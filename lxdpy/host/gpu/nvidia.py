"""What NVIDIA's kernel module tells below /proc/driver/nvidia."""

import re
from pathlib import Path

import msgspec

from lxdpy.host.gpu.drm import names, pci_address, text
from lxdpy.host.gpu.facts import Mig
from lxdpy.host.paths import HostRoot

CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""Device files that every user of an NVIDIA GPU needs, whichever it has."""


class Information(msgspec.Struct, frozen=True):
    """One card's `information` file."""

    model: str
    uuid: str  # "": the module has not made contact with the card yet
    minor: int  # of /dev/nvidiaN; -1: unknown


def information(root: HostRoot) -> dict[str, Information]:
    """By PCI address. The module pads unknown values with question marks."""
    folder = root.proc / "driver/nvidia/gpus"
    return {pci_address(name): _information(folder / name / "information") for name in names(folder)}


def driver_version(root: HostRoot) -> str:
    """That of the loaded module ("550.54.14"), or nothing."""
    first = text(root.proc / "driver/nvidia/version").partition("\n")[0]
    found = re.search(r"\s([0-9]{2,4}(?:\.[0-9]+)+)\s", first + " ")
    return found[1] if found else ""


def is_cut(root: HostRoot, minor: int) -> bool:
    """Whether there are GPU instances on a card, of whatever use."""
    return any(
        name.startswith("gi") for name in names(root.proc / f"driver/nvidia/capabilities/gpu{minor}/mig")
    )


def mig_devices(root: HostRoot, minor: int, uuid: str) -> tuple[Mig, ...]:
    """What a card is cut into, as far as the module tells. Named as NVIDIA once did."""
    folder = root.proc / f"driver/nvidia/capabilities/gpu{minor}/mig"
    return tuple(
        Mig(uuid=f"MIG-{uuid}/{gi[2:]}/{ci[2:]}", profile="", gi=int(gi[2:]), ci=int(ci[2:]))
        for gi in names(folder)
        if re.fullmatch(r"gi[0-9]+", gi)
        for ci in names(folder / gi)
        if re.fullmatch(r"ci[0-9]+", ci)
    )


def capabilities(root: HostRoot, minor: int, part: Mig) -> tuple[int, ...]:
    """Minor numbers of the capability files: of the GPU instance, and of the compute instance in it."""
    folder = root.proc / f"driver/nvidia/capabilities/gpu{minor}/mig/gi{part.gi}"
    told = (text(folder / name) for name in ("access", f"ci{part.ci}/access"))
    found = (re.search(r"DeviceFileMinor:\s*([0-9]+)", said) for said in told)
    return tuple(int(each[1]) for each in found if each)


def _information(path: Path) -> Information:
    lines = (line.partition(":") for line in text(path).splitlines())
    said = {key.strip(): value.strip() for key, _, value in lines}
    uuid = said.get("GPU UUID", "")
    minor = said.get("Device Minor", "")
    return Information(
        model=said.get("Model", ""),
        uuid="" if "?" in uuid else uuid,
        minor=int(minor) if re.fullmatch(r"[0-9]{1,7}", minor) else -1,
    )
