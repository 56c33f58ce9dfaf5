"""Device type `infiniband`: an InfiniBand interface of the host and its device files, lent to the instance.

`nictype` physical lends the parent itself, sriov a virtual function of it that nobody has. A function belongs
to whoever has its interface: on the host there is then none of that name to be lent again.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from cluster.errors import Exhausted, Invalid
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import integer, interface_name, matching, one_of
from lxdpy.host.devices import nic_physical
from lxdpy.host.devices.driver import Attachment, Node, Options, Seat
from lxdpy.host.devices.unix_options import attachment, given_before
from lxdpy.host.hardware.files import entries, text
from lxdpy.host.paths import HostRoot

CLASSES = ("infiniband_mad", "infiniband_verbs")  # of sysfs: issm, umad; uverbs
INFINIBAND = "32"  # ARPHRD_INFINIBAND of linux/if_arp.h


class Infiniband:
    """See DeviceDriver. Kept in volatile: nodes, host_name, last_state.hwaddr, last_state.mtu."""

    type: ClassVar[str] = "infiniband"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("infiniband device", [
        Key(name="type", doc="`infiniband`."),
        Key(
            name="nictype",
            doc="Whether the parent itself is lent (`physical`) or a virtual function of it (`sriov`).",
            parse=one_of("physical", "sriov"),
        ),
        Key(name="parent", doc="InfiniBand interface of the host.", parse=interface_name),
        Key(name="name", doc="Name of the interface in the instance.", parse=interface_name),
        Key(
            name="hwaddr",
            doc="Address of the interface, 20 bytes; unset for its own.",
            parse=matching(r"(?:[0-9A-Fa-f]{2}:){19}[0-9A-Fa-f]{2}", "an InfiniBand address of 20 bytes"),
        ),
        Key(name="mtu", doc="Largest packet, in bytes.", parse=integer(576, 65535)),
    ])  # fmt: skip

    def __init__(self, root: HostRoot) -> None:
        self._root = root

    def check(self, options: Options) -> None:
        self.options.check(options)
        for key in ("nictype", "parent"):
            if not options.get(key):
                wanted = "physical or sriov" if key == "nictype" else "the name of an interface of the host"
                raise Invalid(f'infiniband device: "{key}" is needed: {wanted}', key=key)

    async def start(self, seat: Seat) -> Attachment:
        """Raises Invalid for another kind of interface, Exhausted when all functions are in use."""
        name = await asyncio.to_thread(interface_of, self._root, seat)
        lent = await nic_physical.lend(_of(seat, name))
        files = await asyncio.to_thread(lambda: [*device_files(self._root, name)])
        part = attachment(files)
        return Attachment(nics=(lent[0],), nodes=part.nodes, volatile=part.volatile | lent[1])

    async def detach(self, seat: Seat) -> Attachment:
        return Attachment(nics=nic_physical.lent_nics(seat), nodes=given_before(seat).nodes)

    async def stop(self, seat: Seat) -> None:
        await nic_physical.give_back(seat)


def interface_of(root: HostRoot, seat: Seat) -> str:
    """The parent, or a function of it: the one it had before, or the first that is on the host."""
    parent = root.sys / "class/net" / seat.options["parent"]
    if not parent.exists() or seat.options["nictype"] == "physical":
        return _checked(parent)
    known = seat.volatile.get("host_name", "")
    free = [
        interface.name
        for function in entries(parent / "device")
        if function.name.startswith("virtfn")
        for interface in entries(function / "net")
    ]
    if not free:
        raise Exhausted(f"No virtual function of {parent.name} is free", parent=parent.name)
    return known if known in free else free[0]


def _checked(interface: Path) -> str:
    kind, name = text(interface / "type"), interface.name
    if kind and kind != INFINIBAND:
        raise Invalid(f'"parent={name}" is not an InfiniBand interface', key="parent", value=name)
    return name


def device_files(root: HostRoot, name: str) -> Iterator[Node]:
    """Those of the PCI function that an interface belongs to."""
    device = (root.sys / "class/net" / name / "device").resolve()
    for folder in CLASSES:
        for entry in entries(root.sys / "class" / folder):
            major, _, minor = text(entry / "dev").partition(":")
            if (entry / "device").resolve() == device and major.isdigit() and minor.isdigit():
                path = f"/dev/infiniband/{entry.name}"
                yield Node(path=path, major=int(major), minor=int(minor), mode=0o666)


def _of(seat: Seat, name: str) -> Seat:
    """As if it were asked for that interface."""
    options = {**seat.options, "parent": name}
    return msgspec.structs.replace(seat, options=options)
