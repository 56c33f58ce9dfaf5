"""Device type `gpu`, gputype `mig`: MIG devices, parts of NVIDIA's GPUs that an operator has made.

The file of the whole card opens nothing by itself: what a container may use of it is told by the capability
files of the GPU instance and the compute instance, and of those it gets its own alone.
"""

import asyncio
from typing import ClassVar

from cluster.errors import Invalid
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import integer, matching
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
from lxdpy.host.gpu.inventory import Node
from lxdpy.host.paths import HostRoot

PROFILE = r"[1-7](?:c\.[1-7])?g\.[0-9]{1,4}gb(?:\+[a-z.]{1,16})?"
NVIDIA = frozenset({"nvidia"})


class GpuMig:
    """See DeviceDriver. `member` is what `inventory.discover` wants it for."""

    type: ClassVar[str] = "gpu/mig"
    hotplug: ClassVar[bool] = True
    options: ClassVar[KeyTable] = KeyTable("gpu device", [
        *COMMON,
        Key(
            name="mig.profile",
            doc="Profile of the MIG devices, such as `1g.5gb`.",
            parse=matching(PROFILE, "a profile such as 1g.5gb"),
        ),
        Key(
            name="mig.uuid",
            doc="UUID of the MIG device, with or without `MIG-`.",
            parse=matching(r"(?i:MIG-)?[0-9A-Za-z/-]{3,80}", "the UUID of a MIG device"),
        ),
        Key(name="mig.gi", doc="GPU instance of the MIG device.", parse=integer(0, 999)),
        Key(name="mig.ci", doc="Compute instance of the MIG device.", parse=integer(0, 999)),
        *OWNER,
    ])  # fmt: skip

    def __init__(self, root: HostRoot, member: str) -> None:
        self._root, self._member = root, member

    def check(self, options: Options) -> None:
        """Raises Invalid, in LXD's words where it has the rule too."""
        self.options.check(options)
        check_selectors(options)
        instances = [key for key in ("mig.gi", "mig.ci") if options.get(key)]
        if options.get("mig.uuid"):
            for key in (*instances, "mig.profile"):
                if options.get(key):
                    raise Invalid(f'Cannot use "{key}" when "mig.uuid" is set', key=key)
        elif len(instances) == 1:
            raise Invalid('Both "mig.gi" and "mig.ci" must be set, or neither', key=instances[0])
        elif (
            not instances
            and not cdi_name(options)
            and not any(options.get(key) for key in ("mig.profile", "count", "match"))
        ):
            raise Invalid(
                'A MIG device is named by "mig.uuid", by "mig.gi" and "mig.ci", or asked for by '
                '"mig.profile", "count" or "match"',
                key="mig.uuid",
            )
        if (options.get("mig.uuid") or instances) and options.get("count", "1") not in ("", "1"):
            raise Invalid('"count" must be 1 where one MIG device is named', key="count")

    async def start(self, seat: Seat) -> Attachment:
        """Changes nothing on the host. Raises GpuGone, NoGrant."""
        if name := cdi_name(seat.options):
            gpus = await asyncio.to_thread(inventory.discover, self._root, self._member)
            return await asyncio.to_thread(cdi_attachment, self._root, seat, name, gpus)
        found = await asyncio.to_thread(self._files)
        files = [file for uuid in granted_of(seat, found) for file in found[uuid]]
        unique = {file.path: file for file in (*files, *inventory.control_nodes(self._root, NVIDIA))}
        return attachment(seat, unique.values(), seat.gpus)

    async def detach(self, seat: Seat) -> Attachment:
        return given_before(seat)

    async def numbers(self, seat: Seat) -> Numbers:
        """See Renumbered."""
        found = await asyncio.to_thread(self._files)
        return numbers_of(seat, found, inventory.control_nodes(self._root, NVIDIA))

    async def stop(self, seat: Seat) -> None:
        """Nothing was made: the device files go with the container, the grant with the ledger."""

    def _files(self) -> dict[str, tuple[Node, ...]]:
        """By uuid, those of each MIG device there is."""
        gpus = inventory.discover(self._root, self._member)
        return {part.uuid: inventory.mig_nodes(self._root, gpu, part) for gpu in gpus for part in gpu.mig}
