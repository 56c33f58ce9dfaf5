"""/1.0/resources: what a member's host has."""

import asyncio
from typing import Any

from aiohttp import web

from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.gpu.resources import resources as gpus
from lxdpy.host.hardware.cpu import cpus
from lxdpy.host.hardware.memory import memory
from lxdpy.host.hardware.network import network
from lxdpy.host.hardware.pci import pci
from lxdpy.host.hardware.storage import storage
from lxdpy.host.hardware.system import system
from lxdpy.host.hardware.usb import usb
from lxdpy.host.paths import HostRoot
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes, target_member

routes = Routes("/1.0/resources")


@routes.on("GET", entitlement="can_view", owner=target_member)
async def show_resources(call: Call[None]) -> web.Response:
    return sync(await asyncio.to_thread(resources, call.daemon.host, call.daemon.gpu_host))


def resources(root: HostRoot, gpu_root: HostRoot) -> dict[str, Any]:
    """LXD's Resources; GPUs have a tree of their own when they are made up. Blocking."""
    ids = PciIds.of_this_host()
    return {
        "cpu": cpus(root),
        "memory": memory(root),
        "gpu": gpus(gpu_root, ids),
        "network": network(root, ids),
        "storage": storage(root),
        "usb": usb(root),
        "pci": pci(root, ids),
        "system": system(root),
    }
