"""Device type `usb`: all USB devices of some vendor and product, or the one at a place of the bus.

Which of the host's are given follows what is plugged in, also while the instance runs.
"""

import asyncio
from typing import ClassVar

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import boolean, integer
from lxdpy.host.devices.driver import Attachment, Options, Seat
from lxdpy.host.devices.unix_options import (
    OWNER,
    DeviceMissing,
    attachment,
    given_before,
    owned,
    usb_id,
)
from lxdpy.host.devices.usb_tree import FOLDER, UsbDevice, usb_devices
from lxdpy.host.paths import HostRoot


class Usb:
    """See DeviceDriver and Changing. Kept in volatile: nodes."""

    type: ClassVar[str] = "usb"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("usb device", [
        Key(name="type", doc="`usb`."),
        Key(name="vendorid", doc="Vendor of the devices, such as `046d`; unset for any.", parse=usb_id),
        Key(name="productid", doc="Product of the devices, such as `c52b`; unset for any.", parse=usb_id),
        Key(name="serial", doc="Serial number of the device; unset for any."),
        Key(name="busnum", doc="Number of the bus it is on; unset for any.", parse=integer(1, 999)),
        Key(name="devnum", doc="Number it has on its bus; unset for any.", parse=integer(1, 127)),
        Key(
            name="required",
            doc="Whether the instance does not start while there is no such device.",
            parse=boolean,
            default="false",
        ),
        *OWNER,
    ])  # fmt: skip

    def __init__(self, root: HostRoot) -> None:
        self._root = root

    def check(self, options: Options) -> None:
        """No selector at all means all devices, as with LXD."""
        self.options.check(options)

    async def start(self, seat: Seat) -> Attachment:
        """Changes nothing on the host. Raises DeviceMissing."""
        found = await asyncio.to_thread(usb_devices, self._root)
        mine = [device for device in found if _fits(seat.options, device)]
        if not mine and self.options.parsed(seat.options, "required"):
            raise DeviceMissing("Required USB device does not exist on this host", device=seat.name)
        return attachment(
            owned(seat.options, device.path, "c", device.major, device.minor) for device in mine
        )

    async def detach(self, seat: Seat) -> Attachment:
        return given_before(seat)

    async def stop(self, seat: Seat) -> None:
        """Nothing was made: the files go with the container."""

    def watched(self, options: Options) -> tuple[str, ...]:
        return (str(self._root.sys / FOLDER),)


def _fits(options: Options, device: UsbDevice) -> bool:
    has = {
        "vendorid": device.vendor,
        "productid": device.product,
        "serial": device.serial,
        "busnum": device.bus,
        "devnum": device.device,
    }
    wanted = {key: options[key] for key in has if options.get(key)}
    return all(
        has[key] == (int(value) if key.endswith("num") else value if key == "serial" else value.lower())
        for key, value in wanted.items()
    )
