"""Device type `nic`, `nictype` p2p: a pair between host and instance, connected to nothing else."""

import asyncio
from typing import ClassVar

from lxdpy.config.key import KeyTable
from lxdpy.host.devices.driver import Attachment, Nic, Options, Seat
from lxdpy.host.devices.nic import COMMON, end_of, host_name_of, hwaddr_of, owner_of, routes_of
from lxdpy.host.devices.nic_limits import LIMITS, NAMES, change, check_limits, hold_back, let_go, limit
from lxdpy.host.network import veth
from lxdpy.host.undo import Undo


class NicP2p:
    """See DeviceDriver. Kept in volatile: hwaddr, host_name."""

    type: ClassVar[str] = "nic/p2p"
    hotplug: ClassVar[bool] = True
    updatable: ClassVar[frozenset[str]] = NAMES | {"ipv4.routes", "ipv6.routes"}
    options: ClassVar[KeyTable] = KeyTable("p2p nic device", [*COMMON, *LIMITS])

    def check(self, options: Options) -> None:
        self.options.check(options)
        check_limits(options)

    async def start(self, seat: Seat) -> Attachment:
        hwaddr, host_name = hwaddr_of(seat), host_name_of(seat)
        pair = veth.Pair(
            owner=owner_of(seat),
            host_name=host_name,
            hwaddr=hwaddr,
            mtu=int(seat.options.get("mtu") or 0),
            routes=routes_of(seat.options),
            ingress=limit(seat.options, "limits.ingress"),
        )
        async with Undo() as undo:
            undo.push(self.stop, seat)
            made = await asyncio.to_thread(veth.make, pair)
            await hold_back(seat, host_name, undo)
        name = seat.options.get("name", "")
        nic = Nic(name=name, link=made.peer, host_name=host_name, hwaddr=hwaddr, mtu=made.mtu)
        return Attachment(nics=(nic,), volatile={"hwaddr": hwaddr, "host_name": host_name})

    async def update(self, seat: Seat, before: Options) -> None:
        await change(seat)
        old, new = routes_of(before), routes_of(seat.options)
        await asyncio.to_thread(veth.set_routes, end_of(seat), old, new)

    async def detach(self, seat: Seat) -> Attachment:
        """Nothing to take out: the container's end goes with the host's."""
        return Attachment()

    async def stop(self, seat: Seat) -> None:
        known = seat.volatile.get("host_name", "")
        await asyncio.to_thread(veth.remove, owner_of(seat), known)
        await let_go(seat)
