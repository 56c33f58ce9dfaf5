"""What a device driver is: one type of device, from its options to what the container gets.

A driver makes and removes things of the host; what goes *into* a container it returns as an `Attachment`,
which the LXC config (cold start) and the runtime (hot plug) carry out. So drivers need no container to be
tested.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from lxdpy.config.key import KeyTable
from lxdpy.host.network.driver import Network
from lxdpy.host.proxy.addresses import Forward

Options = Mapping[str, str]
"""The entry of a device in `devices`: "type" and the options of that type."""


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device goes: what a driver may know of the instance, and no more."""

    instance: str  # key, "project/name"
    name: str  # of the device in the instance's config
    options: dict[str, str]
    volatile: dict[str, str] = {}  # what earlier starts left, without the "volatile.<name>." prefix
    network: Network | None = None  # the managed network that "network", or "parent", names
    folder: str = ""  # where the host may mount things for this instance alone
    source: str = ""  # host path of the volume, for a disk with "pool"; "" if this member has none
    addresses: tuple[str, ...] = ()  # fixed ones of the instance's NICs, for a proxy
    unmapped: bool = False  # whether the volume's owners are shown as they are on disk
    gpus: tuple[str, ...] = ()  # uuids granted to this device
    idmap_base: int = 0  # host id of the container's root; meaningless when privileged
    idmap_size: int = 65536
    privileged: bool = False
    cold: bool = False  # for a container that LXC is about to start, not for one that runs

    @property
    def root_id(self) -> int:
        """The host's uid and gid of the container's root."""
        return 0 if self.privileged else self.idmap_base


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface of the container. `kind` and `link` are liblxc's `lxc.net.N.type` and `.link`.

    Only a seat that is `cold` is given a veth: LXC makes that pair, under the name `host_name`.
    """

    name: str = ""  # inside the container; "": the first free ethN
    kind: Literal["phys", "veth"] = "phys"
    link: str  # phys: the interface to move into the container; veth: the bridge
    host_name: str = ""  # the end that stays on the host
    hwaddr: str = ""
    mtu: int = 0  # 0: as it is
    lent: bool = False  # the host's own, which must come back however the container ends
    addresses: tuple[str, ...] = ()  # with prefix length, to be set in the container
    gateways: tuple[str, ...] = ()  # to all else; need not be in a subnet of these


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A host path, or a file system, seen in the container."""

    source: str  # host path; for a file system that needs none, its name
    target: str  # absolute path in the container
    filesystem: str = ""  # "": a bind mount
    options: tuple[str, ...] = ()  # further mount options
    directory: bool = True  # whether the mount point is made as a directory or as an empty file
    recursive: bool = False  # bind what is mounted below the source, too
    readonly: bool = False
    optional: bool = False  # start without it when it cannot be mounted
    common: bool = False  # devices that bring the same mount have it once
    idmapped: bool = False  # show host ids as the container's: owner 0 on disk is root inside


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A device file of the container, and leave to use it."""

    path: str  # absolute, in the container
    kind: Literal["c", "b"] = "c"
    major: int
    minor: int
    source: str = ""  # the host's device file; "": none, make one
    uid: int = 0  # owner as the container sees it
    gid: int = 0
    mode: int = 0o660


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """What is done in the container, as its root, when it has all else: at a start before its init runs."""

    links: tuple[tuple[str, str], ...] = ()  # target, path: symbolic links
    libraries: tuple[str, ...] = ()  # folders that the dynamic loader is to know
    modes: tuple[tuple[str, str], ...] = ()  # octal mode, path


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """What a device adds to the container. Data, so that tests can compare it."""

    nics: tuple[Nic, ...] = ()
    mounts: tuple[Mount, ...] = ()
    nodes: tuple[Node, ...] = ()
    environment: dict[str, str] = {}
    finish: Finish | None = None
    lxc: tuple[tuple[str, str], ...] = ()  # further lines of LXC config, in order; cold start only
    volatile: dict[str, str] = {}  # to remember between starts, without the "volatile.<device>." prefix


class DeviceDriver(Protocol):
    """One type of device. `check` is pure and runs on any member; the rest runs on the owner.

    Hot plug: `start`, then the runtime gives the attachment to the running container. Hot unplug: the runtime
    takes what `detach` returns from the container, then `stop`. All are idempotent; `stop` copes with a
    device that was started by half, or never, and with a container that died.
    """

    type: ClassVar[str]  # as in config: "disk", "gpu/physical", "nic/bridged"
    options: ClassVar[KeyTable]
    hotplug: ClassVar[bool]

    def check(self, options: Options) -> None:
        """Raises Invalid, naming the option."""

    async def start(self, seat: Seat) -> Attachment:
        """Make the host's part, and say what the container gets."""
        ...

    async def detach(self, seat: Seat) -> Attachment:
        """What a running container loses with this device; changes nothing."""
        ...

    async def stop(self, seat: Seat) -> None:
        """Remove the host's part."""


@runtime_checkable
class Changing(DeviceDriver, Protocol):
    """A driver of devices that come and go by themselves while the container runs.

    Its `start` changes nothing on the host and is called again whenever something watched may have changed;
    the container then gets the device files that have come, and loses those that are no more.
    """

    def watched(self, options: Options) -> tuple[str, ...]:
        """Paths of the host that matter; below /sys or a copy of it, a folder. () for what stays as it is."""
        ...


@runtime_checkable
class Forwarding(DeviceDriver, Protocol):
    """A driver of devices that take a process beside the running container. `stop` ends it."""

    def forward(self, seat: Seat) -> Forward | None:
        """What the process is to do; None for a device that takes none."""
        ...


@runtime_checkable
class Updating(DeviceDriver, Protocol):
    """A driver that can change some options of a device while the container has it, which notices nothing."""

    updatable: ClassVar[frozenset[str]]

    async def update(self, seat: Seat, before: Options) -> None:
        """Make the host's part as the seat says, where the options were `before`. Idempotent."""
        ...
