"""The drivers that need no root keep the contract."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lxdpy.host.devices.driver import DeviceDriver, Seat
from lxdpy.host.devices.registry import devices
from lxdpy.host.network.fake import FakeBridge
from tests.contracts.devices import PROMISES
from tests.lxdpy.host.devices.usb_files import plugged

Promise = Callable[[DeviceDriver, Seat], Awaitable[None]]

DEVICES = (
    {"type": "none"},
    {"type": "disk", "path": "/", "pool": "default"},
    {"type": "disk", "path": "/mnt", "source": "FOLDER", "readonly": "true"},
    {"type": "disk", "path": "/mnt", "source": "vol1", "pool": "default"},
    {"type": "unix-char", "path": "/dev/null"},
    {"type": "unix-char", "source": "FOLDER/none", "required": "false"},
    {"type": "unix-block", "path": "/dev/x", "major": "7", "minor": "1"},
    {"type": "usb", "vendorid": "046d"},
    {"type": "proxy", "listen": "tcp:127.0.0.1:80", "connect": "tcp:127.0.0.1:80"},
    {"type": "unix-hotplug", "vendorid": "0403"},
)


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("options", DEVICES)
def test_the_driver_keeps(promise: Promise, options: dict[str, str], tmp_path: Path) -> None:
    filled = {key: value.replace("FOLDER", str(tmp_path)) for key, value in options.items()}
    seat = Seat(instance="default/c1", name="d", options=filled, source=str(tmp_path), idmap_base=1_000_000)

    async def scenario() -> None:
        await promise(devices(FakeBridge(), root=plugged(tmp_path)).driver_for(filled), seat)

    asyncio.run(scenario())
