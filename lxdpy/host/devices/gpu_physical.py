"""Device type `gpu`, gputype `physical`: whole GPUs. Which ones was decided before and stands in the seat.

A container gets the device files of its own GPUs, and the control files all holders of such GPUs use; it sees
no trace of the others.
"""

import asyncio
from typing import ClassVar

from cluster.errors import Invalid
from lxdpy.config.key import KeyTable
from lxdpy.host.devices.driver import Attachment, Options, Seat
from lxdpy.host.devices.gpu_cdi import cdi_attachment, cdi_name
from lxdpy.host.devices.gpu_numbers import Numbers, numbers_of
from lxdpy.host.devices.gpu_options import (
    COMMON,
    OWNER,
    attachment,
    check_selectors,
    given_before,
    granted_of,
)
from lxdpy.host.gpu import inventory
from lxdpy.host.paths import HostRoot


class GpuPhysical:
    """See DeviceDriver. `member` is what `inventory.discover` wants it for."""

    type: ClassVar[str] = "gpu/physical"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("gpu device", [*COMMON, *OWNER])

    def __init__(self, root: HostRoot, member: str) -> None:
        self._root, self._member = root, member

    def check(self, options: Options) -> None:
        """Raises Invalid, in LXD's words where it has the rule too."""
        self.options.check(options)
        check_selectors(options)
        for one in ("pci", "id"):
            if options.get(one) and options.get("count", "1") not in ("", "1"):
                raise Invalid(f'"{one}" names one GPU, so "count" must be 1', key="count")

    async def start(self, seat: Seat) -> Attachment:
        """Changes nothing on the host. Raises GpuGone, NoGrant."""
        found = await asyncio.to_thread(inventory.discover, self._root, self._member)
        here = {gpu.uuid: gpu for gpu in found}
        gpus = [here[uuid] for uuid in granted_of(seat, here)]
        vendors = frozenset(gpu.vendor for gpu in gpus)
        files = [node for gpu in gpus for node in gpu.nodes]
        files += inventory.control_nodes(self._root, vendors)
        if name := cdi_name(seat.options):
            return await asyncio.to_thread(cdi_attachment, self._root, seat, name, found)
        return attachment(seat, files, [gpu.uuid for gpu in gpus if gpu.vendor == "nvidia"])

    async def detach(self, seat: Seat) -> Attachment:
        return given_before(seat)

    async def numbers(self, seat: Seat) -> Numbers:
        """See Renumbered."""
        found = await asyncio.to_thread(inventory.discover, self._root, self._member)
        vendors = frozenset(gpu.vendor for gpu in found if gpu.uuid in seat.gpus)
        control = inventory.control_nodes(self._root, vendors)
        return numbers_of(seat, {gpu.uuid: gpu.nodes for gpu in found}, control)

    async def stop(self, seat: Seat) -> None:
        """Nothing was made: the device files go with the container, the grant with the ledger."""
