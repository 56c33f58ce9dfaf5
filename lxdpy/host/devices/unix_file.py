"""Device types `unix-char` and `unix-block`: a device of the host, by its file's path or its numbers."""

import asyncio
from typing import ClassVar, Literal

from lxdpy.config.key import KeyTable
from lxdpy.host.devices.driver import Attachment, Options, Seat
from lxdpy.host.devices.unix_options import (
    DeviceMissing,
    attachment,
    check_file,
    file_keys,
    given_before,
    node_of,
    source_of,
)


class _UnixFile:
    """See DeviceDriver, and Changing for one that is not required. Kept in volatile: nodes."""

    type: ClassVar[str]
    kind: ClassVar[Literal["b", "c"]]
    options: ClassVar[KeyTable]
    hotplug: ClassVar[bool] = True

    def check(self, options: Options) -> None:
        self.options.check(options)
        check_file(options)

    async def start(self, seat: Seat) -> Attachment:
        """Changes nothing on the host. Raises DeviceMissing for a required one, Invalid for another file."""
        node = await asyncio.to_thread(node_of, seat.options, self.kind)
        if node is None and self.options.parsed(seat.options, "required"):
            raise DeviceMissing(
                f"Required device does not exist on this host: {source_of(seat.options)}", device=seat.name
            )
        return attachment([node] if node else [])

    async def detach(self, seat: Seat) -> Attachment:
        return given_before(seat)

    async def stop(self, seat: Seat) -> None:
        """Nothing was made: the file goes with the container."""

    def watched(self, options: Options) -> tuple[str, ...]:
        if options.get("major") or self.options.parsed(options, "required"):
            return ()
        return (source_of(options),)


class UnixChar(_UnixFile):
    """A character device."""

    type = "unix-char"
    kind = "c"
    options = KeyTable("unix-char device", file_keys("unix-char"))


class UnixBlock(_UnixFile):
    """A block device."""

    type = "unix-block"
    kind = "b"
    options = KeyTable("unix-block device", file_keys("unix-block"))
