"""Device type `none`: takes away a device of the same name that a profile gives."""

from typing import ClassVar

from lxdpy.config.key import Key, KeyTable
from lxdpy.host.devices.driver import Attachment, Options, Seat


class Nothing:
    """See DeviceDriver. Touches nothing."""

    type: ClassVar[str] = "none"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("none device", [Key(name="type", doc="`none`.")])

    def check(self, options: Options) -> None:
        self.options.check(options)

    async def start(self, seat: Seat) -> Attachment:
        return Attachment()

    async def detach(self, seat: Seat) -> Attachment:
        return Attachment()

    async def stop(self, seat: Seat) -> None:
        """Nothing was made."""
