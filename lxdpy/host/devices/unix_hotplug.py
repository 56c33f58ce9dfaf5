"""Device type `unix-hotplug`: what the drivers of USB devices make (serial lines, disks), by who made them.

It follows what is plugged in. Vendor and product are those of the USB device, as in sysfs: no udev is asked.
"""

import asyncio
import os
from typing import ClassVar

from cluster.errors import Invalid
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import boolean, matching
from lxdpy.host.devices.driver import Attachment, Node, Options, Seat
from lxdpy.host.devices.unix_options import (
    OWNER,
    DeviceMissing,
    attachment,
    given_before,
    owned,
    usb_id,
)
from lxdpy.host.devices.usb_tree import FOLDER, DeviceFile, device_files
from lxdpy.host.paths import HostRoot

INHERIT = "ownership.inherit"


class UnixHotplug:
    """See DeviceDriver and Changing. Kept in volatile: nodes."""

    type: ClassVar[str] = "unix-hotplug"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("unix-hotplug device", [
        Key(name="type", doc="`unix-hotplug`."),
        Key(name="vendorid", doc="Vendor of the USB device; unset for any.", parse=usb_id),
        Key(name="productid", doc="Product of the USB device; unset for any.", parse=usb_id),
        Key(
            name="subsystem",
            doc="Only files of this subsystem, such as `tty` or `block`.",
            parse=matching(r"[a-z0-9_-]{1,32}", "the name of a subsystem, such as tty"),
        ),
        Key(
            name="required",
            doc="Whether the instance does not start while there is no such file.",
            parse=boolean,
            default="false",
        ),
        Key(
            name=INHERIT,
            doc="Whether the files belong to whom they belong on the host, as far as uid and gid are unset.",
            parse=boolean,
            default="false",
        ),
        *OWNER,
    ])  # fmt: skip

    def __init__(self, root: HostRoot) -> None:
        self._root = root

    def check(self, options: Options) -> None:
        self.options.check(options)
        if not any(options.get(key) for key in ("vendorid", "productid", "subsystem")):
            raise Invalid(
                'unix-hotplug device: "vendorid", "productid" or "subsystem" is needed', key="vendorid"
            )

    async def start(self, seat: Seat) -> Attachment:
        """Changes nothing on the host. Raises DeviceMissing."""
        found = await asyncio.to_thread(device_files, self._root)
        fitting = [file for file in found if _fits(seat.options, file)]
        mine = [node for file in fitting if (node := self._node(seat.options, file))]
        if not mine and self.options.parsed(seat.options, "required"):
            raise DeviceMissing("Required hotplug device does not exist on this host", device=seat.name)
        return attachment(mine)

    async def detach(self, seat: Seat) -> Attachment:
        return given_before(seat)

    async def stop(self, seat: Seat) -> None:
        """Nothing was made: the files go with the container."""

    def watched(self, options: Options) -> tuple[str, ...]:
        return (
            str(self._root.sys / FOLDER),
            *(str(self._root.sys / "dev" / kind) for kind in ("char", "block")),
        )

    def _node(self, options: Options, file: DeviceFile) -> Node | None:
        """None for one that is just coming or going: it is not yet, or no more, where sysfs has it."""
        owner = {}
        if self.options.parsed(options, INHERIT):
            try:
                status = os.stat(self._root.dev / file.path.removeprefix("/dev/"))
            except FileNotFoundError:
                return None
            owner = {"uid": str(status.st_uid), "gid": str(status.st_gid)}
        return owned({**owner, **options}, file.path, "b" if file.block else "c", file.major, file.minor)


def _fits(options: Options, file: DeviceFile) -> bool:
    has = {"vendorid": file.vendor, "productid": file.product, "subsystem": file.subsystem}
    return all(options[key].lower() == value for key, value in has.items() if options.get(key))
