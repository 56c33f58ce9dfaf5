"""Device type `nic`, `nictype` macvlan: an interface with an address of its own on one of the host's.

The instance reaches what the parent is connected to, and others on the same parent, but not the host.
"""

import asyncio
from typing import ClassVar

from lxdpy.config.key import KeyTable
from lxdpy.host.devices.driver import Attachment, Nic, Options, Seat
from lxdpy.host.devices.nic import (
    OWN,
    PARENT,
    check_parent,
    hwaddr_of,
    inside_name,
    owner_of,
)
from lxdpy.host.devices.nic_vlan import OF_PARENT, check_vlan, hold, release
from lxdpy.host.network import macvlan
from lxdpy.host.undo import Undo


class NicMacvlan:
    """See DeviceDriver. Kept in volatile: hwaddr, host_name."""

    type: ClassVar[str] = "nic/macvlan"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("macvlan nic device", [*OWN, PARENT, *OF_PARENT])

    def check(self, options: Options) -> None:
        self.options.check(options)
        check_vlan(options)
        check_parent(options)

    async def start(self, seat: Seat) -> Attachment:
        """Raises Unavailable without the parent."""
        hwaddr = hwaddr_of(seat)
        name = seat.volatile.get("host_name") or macvlan.random_name()
        mtu = int(seat.options.get("mtu") or 0)
        async with Undo() as undo:
            undo.push(release, seat)
            parent = await hold(seat)
            size = await asyncio.to_thread(macvlan.make, owner_of(seat), name, parent, hwaddr, mtu)
        nic = Nic(name=seat.options.get("name", ""), link=name, hwaddr=hwaddr, mtu=size)
        return Attachment(nics=(nic,), volatile={"hwaddr": hwaddr, "host_name": name})

    async def detach(self, seat: Seat) -> Attachment:
        known = seat.volatile.get("host_name", "")
        return Attachment(nics=(Nic(name=inside_name(seat), link=known),) if known else ())

    async def stop(self, seat: Seat) -> None:
        await asyncio.to_thread(macvlan.remove, owner_of(seat))
        await release(seat)
