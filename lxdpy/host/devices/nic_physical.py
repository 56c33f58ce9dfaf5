"""Device type `nic`, `nictype` physical: an interface of the host, moved into the instance while it runs."""

import asyncio
from pathlib import Path
from typing import ClassVar

import msgspec

from lxdpy.config.key import KeyTable
from lxdpy.host.devices.driver import Attachment, Nic, Options, Seat
from lxdpy.host.devices.nic import OWN, PARENT, check_parent, inside_name
from lxdpy.host.devices.nic_vlan import OF_PARENT, check_vlan, hold, release
from lxdpy.host.network import lent
from lxdpy.host.network.lent import Lent
from lxdpy.host.network.move import move_out_of
from lxdpy.host.network.pin import pinned, unpin
from lxdpy.host.undo import Undo

HWADDR, MTU = "last_state.hwaddr", "last_state.mtu"  # volatile: what it was on the host, as LXD notes it


class NicPhysical:
    """See DeviceDriver. Kept in volatile: host_name, last_state.hwaddr, last_state.mtu."""

    type: ClassVar[str] = "nic/physical"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("physical nic device", [*OWN, PARENT, *OF_PARENT])

    def check(self, options: Options) -> None:
        self.options.check(options)
        check_vlan(options)
        check_parent(options)

    async def start(self, seat: Seat) -> Attachment:
        """Raises Unavailable when the parent is not on this host, or in another instance."""
        await give_back(seat)
        async with Undo() as undo:
            undo.push(release, seat)
            parent = await hold(seat)
            nic, notes = await lend(msgspec.structs.replace(seat, options={**seat.options, "parent": parent}))
        return Attachment(nics=(nic,), volatile=notes)

    async def detach(self, seat: Seat) -> Attachment:
        return Attachment(nics=lent_nics(seat))

    async def stop(self, seat: Seat) -> None:
        await give_back(seat)
        await release(seat)


async def lend(seat: Seat) -> tuple[Nic, dict[str, str]]:
    """The NIC, and what is to be remembered of the interface. One lent by half is taken back first."""
    if seat.folder:
        await give_back(seat)
    name, options = seat.options["parent"], seat.options
    hwaddr, mtu = options.get("hwaddr", "").lower(), int(options.get("mtu") or 0)
    before = await asyncio.to_thread(lent.lend, name, hwaddr, mtu)
    if seat.volatile.get("host_name") == name and seat.volatile.get(HWADDR):
        before = Lent(seat.volatile[HWADDR], int(seat.volatile[MTU]))  # of a start before that did not end
    nic = Nic(
        name=options.get("name", ""),
        link=name,
        hwaddr=hwaddr or before.hwaddr,
        mtu=mtu or before.mtu,
        lent=True,
    )
    return nic, {"host_name": name, HWADDR: before.hwaddr, MTU: str(before.mtu)}


def lent_nics(seat: Seat) -> tuple[Nic, ...]:
    """To be moved out of the container, under the name it had."""
    known = seat.volatile.get("host_name", "")
    return (Nic(name=inside_name(seat), link=known),) if known else ()


def pin_of(seat: Seat) -> Path:
    """File that keeps the network namespace of a container that was lent an interface while it ran."""
    return Path(seat.folder) / f"net.{seat.name}"


async def give_back(seat: Seat) -> None:
    """Idempotent. What came with the start LXC has moved back by now."""
    notes = dict(seat.volatile)
    if seat.folder:
        notes |= await _fetch(pin_of(seat))
    if notes.get("host_name") and notes.get(HWADDR):
        before = Lent(notes[HWADDR], int(notes[MTU]))
        await asyncio.to_thread(lent.take_back, notes["host_name"], before)


async def _fetch(file: Path) -> dict[str, str]:
    """Take out what was lent while the container ran; what was noted of it."""
    notes = await asyncio.to_thread(pinned, file)
    if notes.get("name") and notes.get("host_name"):
        await move_out_of(file, notes["name"], notes["host_name"])
    await asyncio.to_thread(unpin, file)
    return notes
