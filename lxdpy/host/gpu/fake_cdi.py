"""CDI specs for made-up cards, as the vendors' tools write them, with the files that they mount.

NVIDIA's is YAML in /etc/cdi, AMD's JSON beside it, Intel's YAML in /var/run/cdi. Cards go by index, by uuid
and as `all`; MIG devices by `index:number` of their card.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import yaml

from lxdpy.host.gpu import nvidia
from lxdpy.host.gpu.fake_nvml import DRIVER_VERSION
from lxdpy.host.gpu.fake_spec import FakeGpu
from lxdpy.host.gpu.fake_tree import RENDER, Numbers, capability

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
CUDA = f"libcuda.so.{DRIVER_VERSION}"
FILES = {"nvidia": "etc/cdi/nvidia.yaml", "amd": "etc/cdi/amd.json", "intel": "var/run/cdi/intel.yaml"}
HOOK = "/usr/bin/nvidia-cdi-hook"

Json = dict[str, Any]


def specs(gpus: Iterable[FakeGpu], numbers: Mapping[str, Numbers]) -> dict[str, str]:
    """By path below the root: a spec for each vendor, and what the specs mount."""
    by_vendor: dict[str, list[FakeGpu]] = {}
    for gpu in gpus:
        by_vendor.setdefault(gpu.vendor, []).append(gpu)
    found = {}
    for vendor, cards in by_vendor.items():
        spec = {
            "cdiVersion": "0.5.0" if vendor == "nvidia" else "0.3.0",
            "kind": f"{vendor}.com/gpu",
            "devices": _devices(sorted(cards, key=lambda gpu: gpu.pci), numbers),
            "containerEdits": _common(vendor),
        }
        as_json = FILES[vendor].endswith(".json")
        found[FILES[vendor]] = msgspec.json.encode(spec).decode() if as_json else yaml.safe_dump(spec)
    if "nvidia" in by_vendor:
        found[f"{LIBRARIES[1:]}/{CUDA}"] = "a driver's library\n"
    return found


def _devices(gpus: list[FakeGpu], numbers: Mapping[str, Numbers]) -> list[Json]:
    found = []
    everything: list[str] = []
    for index, gpu in enumerate(gpus):
        own = _files(gpu, numbers[gpu.uuid])
        parts = [
            [
                f"/dev/nvidia-caps/nvidia-cap{capability(numbers[gpu.uuid].minor, part, place)}"
                for place in (0, 1)
            ]
            for part in gpu.mig
        ]
        if not parts:
            found += [_device(str(index), own), _device(gpu.uuid, own)]
            everything += own
        for number, caps in enumerate(parts):
            found.append(_device(f"{index}:{number}", own + caps))
    return [*found, _device("all", everything)] if everything else found


def _files(gpu: FakeGpu, numbers: Numbers) -> list[str]:
    own = [f"/dev/nvidia{numbers.minor}"] if gpu.vendor == "nvidia" else []
    return [*own, f"/dev/dri/card{numbers.drm}", f"/dev/dri/renderD{RENDER + numbers.drm}"]


def _device(name: str, files: list[str]) -> Json:
    return {"name": name, "containerEdits": {"deviceNodes": [{"path": path} for path in files]}}


def _common(vendor: str) -> Json:
    if vendor == "amd":
        return {"deviceNodes": [{"path": "/dev/kfd"}]}
    if vendor != "nvidia":
        return {}
    library = f"{LIBRARIES}/{CUDA}"
    return {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{"path": f"/dev/{name}"} for name in nvidia.CONTROL],
        "mounts": [
            {"hostPath": library, "containerPath": library, "options": ["ro", "nosuid", "nodev", "bind"]}
        ],
        "hooks": [
            _hook("create-symlinks", "--link", f"{CUDA}::{LIBRARIES}/libcuda.so.1"),
            _hook("update-ldcache", "--folder", LIBRARIES),
            _hook("chmod", "--mode", "755", "--path", "/dev/dri"),
            _hook("disable-device-node-modification"),
        ],
    }


def _hook(*words: str) -> Json:
    return {"hookName": "createContainer", "path": HOOK, "args": ["nvidia-cdi-hook", *words]}
