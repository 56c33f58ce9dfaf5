"""Views for the scheduler's tests, with the least said."""

from collections.abc import Iterable
from typing import Any

from cluster.scheduler.types import GpuAsk, GpuView, Hold, MemberView

GIB = 2**30


def gpu(number: int, **known: Any) -> GpuView:
    """An NVIDIA A100 of 40 GiB at bus `number`, free and healthy unless `known` says otherwise."""
    base: dict[str, Any] = {
        "uuid": f"GPU-{number:04d}",
        "vendor": "nvidia",
        "model": "NVIDIA A100-SXM4-40GB",
        "memory": 40 * GIB,
        "driver": "nvidia",
        "driver_version": "550.54.14",
        "pci": f"0000:{number:02x}:00.0",
        "numa": 0,
        "drm": str(number),
        "vendor_id": "10de",
        "product_id": "20b0",
    }
    return GpuView(**(base | known))


def taken(number: int, by: str = "default/c1", sharing: Any = "exclusive", **known: Any) -> GpuView:
    return gpu(number, state=sharing, holders=(Hold(by, sharing, known.pop("reserved", 0)),), **known)


def member(name: str, gpus: Iterable[GpuView] = (), **known: Any) -> MemberView:
    return MemberView(name=name, gpus=tuple(gpus), architecture="x86_64", **known)


def want(count: int = 1, device: str = "gpu", **known: Any) -> GpuAsk:
    return GpuAsk(device=device, count=count, **known)
