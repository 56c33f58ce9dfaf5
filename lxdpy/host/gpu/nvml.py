"""Facts from NVML, through nvidia-ml-py, where libnvidia-ml.so.1 is installed.

NVML is opened for each question and closed again: a driver loaded, unloaded or upgraded in between is then
no special case, and inventory is asked for seldom. With a card in persistence mode that takes some ten
milliseconds.
"""

import ctypes
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxdpy.host.gpu.drm import pci_address
from lxdpy.host.gpu.facts import Facts, Mig, Process
from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.health import Remapping, Signs
from lxdpy.host.gpu.nvidia import information
from lxdpy.host.paths import HostRoot

log = logging.getLogger(__name__)

NVLINKS = 18  # most links of a card, on Hopper and Blackwell; NVML refuses numbers it has not got
ANCESTORS = {0: "pix", 10: "pix", 20: "pxb", 30: "phb", 40: "node"}
"""NVML's levels of the common PCIe ancestor, as the kinds of link we score; further apart is no link."""
BRANDS = {1: "Quadro", 2: "Tesla", 5: "GeForce", 6: "Titan", 14: "NVIDIA", 16: "GeForceRTX"}


def facts(root: HostRoot) -> dict[str, Facts]:
    """By PCI address; empty without NVIDIA's driver or library. Its errors are logged, not raised."""
    if not (root.proc / "driver/nvidia").exists():
        return {}
    return read(binding(), information(root))


@lru_cache(maxsize=8)
def binding(library: Path | None = None) -> Any:
    """The module pynvml: one of its own for each library, as it keeps one for good. None: the host's."""
    if library is None:
        return importlib.import_module("pynvml")
    found = importlib.util.find_spec("pynvml")
    assert found, "it is a requirement"
    name = f"pynvml_of_{library}"
    spec = importlib.util.spec_from_file_location(name, found.origin)
    assert spec, "a module is in a file"
    assert spec.loader, "that can be run"
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # it looks itself up there
    spec.loader.exec_module(module)
    module.nvmlLib = ctypes.CDLL(str(library))
    return module


def read(library: Any, there: Iterable[str] = ()) -> dict[str, Facts]:
    """What `library`, the module pynvml, says of all cards it sees, and that those `there` are lost to it."""
    try:
        library.nvmlInit()
    except library.NVMLError as missing:
        log.info("NVML is not to be had, so memory and health of NVIDIA GPUs are unknown: %s", missing)
        return {}
    try:
        cards = dict(handles(library))
        uuids = {address: _ask(library, "nvmlDeviceGetUUID", card, "") for address, card in cards.items()}
        cuda = _ask_of_all(library, "nvmlSystemGetCudaDriverVersion")
        lost = {
            address: Facts(signs=Signs(lost=True))
            for address in there
            if address not in cards and _is_lost(library, address)
        }
        return lost | {
            address: _facts(library, card, uuids[address], cuda, _links(library, address, cards, uuids))
            for address, card in cards.items()
        }
    finally:
        library.nvmlShutdown()


def handles(library: Any) -> Iterator[tuple[str, Any]]:
    """By PCI address, those of all cards that answer."""
    for index in range(_ask_of_all(library, "nvmlDeviceGetCount")):
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
            yield pci_address(_text(library.nvmlDeviceGetPciInfo(handle).busId)), handle
        except library.NVMLError as lost:
            log.debug("NVML has lost GPU %s: %s", index, lost)


def _is_lost(library: Any, address: str) -> bool:
    try:
        library.nvmlDeviceGetHandleByPciBusId(address.encode())
    except library.NVMLError as error:
        return bool(error.value == library.NVML_ERROR_GPU_IS_LOST)
    return False


def _facts(library: Any, handle: Any, uuid: Any, cuda: int, links: dict[str, str]) -> Facts:
    def ask(name: str, otherwise: Any = None) -> Any:
        return _ask(library, name, handle, otherwise)

    memory = ask("nvmlDeviceGetMemoryInfo")
    major, minor = ask("nvmlDeviceGetCudaComputeCapability", (0, 0))
    model = _text(ask("nvmlDeviceGetName", ""))
    mig = ask("nvmlDeviceGetMigMode", (0, 0))[0]
    return Facts(
        uuid=_text(uuid),
        model=model,
        memory=memory.total if memory else 0,
        architecture=f"{major}.{minor}" if major else "",
        brand=BRANDS.get(ask("nvmlDeviceGetBrand", 0), ""),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        signs=_signs(library, handle),
        figures=_figures(library, handle, memory),
        processes=tuple(
            Process(one.pid, one.usedGpuMemory or 0)
            for one in ask("nvmlDeviceGetComputeRunningProcesses", ())
        ),
        cut=bool(mig),
        mig=tuple(_partitions(library, handle)) if mig else (),
        links=links,
    )


def _figures(library: Any, handle: Any, memory: Any) -> Figures:
    """A card in MIG mode does not tell how busy it is. NVML says mW and mJ."""

    def ask(name: str) -> Any:
        return _ask(library, name, handle, None)

    load, power = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetPowerUsage")
    energy = ask("nvmlDeviceGetTotalEnergyConsumption")
    try:
        heat = float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
    except library.NVMLError:
        heat = None
    return Figures(
        busy=load.gpu / 100 if load else None,
        memory_used=memory.used if memory else None,
        temperature=heat,
        power=None if power is None else power / 1000,
        energy=None if energy is None else energy / 1000,
    )


def _signs(library: Any, handle: Any) -> Signs:
    """Lost: off the bus. Errors of memory that were not corrected are counted since the driver's start."""
    try:
        library.nvmlDeviceGetMemoryInfo(handle)
    except library.NVMLError as error:
        if error.value == library.NVML_ERROR_GPU_IS_LOST:
            return Signs(lost=True)
    _correctable, _uncorrectable, pending, failed = _ask(
        library, "nvmlDeviceGetRemappedRows", handle, (0, 0, 0, 0)
    )
    remapping: Remapping = "failed" if failed else "pending" if pending else ""
    try:
        ecc = library.nvmlDeviceGetTotalEccErrors(
            handle, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
        )
    except library.NVMLError:
        ecc = 0  # a card without ECC, or with it off
    return Signs(ecc=ecc, remapping=remapping)


def _partitions(library: Any, handle: Any) -> Iterator[Mig]:
    """The MIG devices there are: "NVIDIA A100 MIG 1g.5gb" ends in the profile."""
    for index in range(_ask(library, "nvmlDeviceGetMaxMigDeviceCount", handle, 0)):
        try:
            part = library.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            uuid = _text(library.nvmlDeviceGetUUID(part))
            gi = library.nvmlDeviceGetGpuInstanceId(part)
        except library.NVMLError:
            continue  # a hole: devices keep their index when others are removed
        memory = _ask(library, "nvmlDeviceGetMemoryInfo", part, None)
        yield Mig(
            uuid=uuid,
            profile=_text(_ask(library, "nvmlDeviceGetName", part, "")).rpartition(" ")[2],
            gi=gi,
            ci=_ask(library, "nvmlDeviceGetComputeInstanceId", part, 0),
            memory=memory.total if memory else 0,
        )


def _links(library: Any, own: str, handles: dict[str, Any], uuids: dict[str, Any]) -> dict[str, str]:
    """The closest kind of link to each other card, NVLink before PCIe."""
    found: dict[str, str] = {}
    for other, handle in handles.items():
        level = None if other == own else _pair(library, handles[own], handle)
        if level in ANCESTORS:
            found[_text(uuids[other])] = ANCESTORS[level]
    for link in range(NVLINKS):
        try:
            if not library.nvmlDeviceGetNvLinkState(handles[own], link):
                continue
            remote = pci_address(_text(library.nvmlDeviceGetNvLinkRemotePciInfo(handles[own], link).busId))
        except library.NVMLError:
            break
        if remote in uuids:
            found[_text(uuids[remote])] = "nvlink"
    return found


def _pair(library: Any, one: Any, other: Any) -> int | None:
    try:
        return int(library.nvmlDeviceGetTopologyCommonAncestor(one, other))
    except library.NVMLError:
        return None


def _ask(library: Any, name: str, handle: Any, otherwise: Any) -> Any:
    """One answer about a card, or `otherwise` where the card or the library has none."""
    try:
        return getattr(library, name)(handle)
    except library.NVMLError:
        return otherwise


def _ask_of_all(library: Any, name: str) -> int:
    question: Callable[[], int] = getattr(library, name)
    try:
        return int(question())
    except library.NVMLError:
        return 0


def _text(answer: Any) -> str:
    """Older bindings answer in bytes."""
    return answer.decode() if isinstance(answer, bytes) else str(answer)
