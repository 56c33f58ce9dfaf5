import asyncio
from pathlib import Path
from typing import Any

from lxdpy.host.paths import HostRoot
from lxdpy.resources.hardware.handlers import routes
from tests.lxdpy.fakes import LocalStore, local_daemon, serving
from tests.lxdpy.host.gpu.trees import A100_1, UUID_1, card, information, make


def _resources(folder: Path, host: HostRoot) -> Any:
    async def ask() -> Any:
        async with serving(local_daemon(folder, LocalStore(), host=host, gpu_host=host), routes) as client:
            return (await client.ask("GET", "/1.0/resources"))["metadata"]

    return asyncio.run(ask())


def test_the_host_has_all_parts_that_clients_look_for(tmp_path: Path) -> None:
    found = _resources(tmp_path, HostRoot())
    assert list(found) == ["cpu", "memory", "gpu", "network", "storage", "usb", "pci", "system"]
    assert found["cpu"]["total"] >= 1
    assert found["memory"]["total"] > found["memory"]["used"] > 0
    for part in ("gpu", "network", "storage", "usb", "pci"):
        assert found[part]["total"] >= 0


def test_gpus_are_those_below_the_members_root(tmp_path: Path) -> None:
    tree = card(A100_1, "10de:20b0", "nvidia", 0, 128) | information(A100_1, UUID_1, 0)
    found = _resources(tmp_path, make(tmp_path / "host", tree))
    assert [(gpu["pci_address"], gpu["nvidia"]["uuid"]) for gpu in found["gpu"]["cards"]] == [
        (A100_1, UUID_1)
    ]
    assert found["gpu"]["total"] == 1
    assert [device["pci_address"] for device in found["pci"]["devices"]] == [A100_1]
