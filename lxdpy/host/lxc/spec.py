"""All that LXC is told of one container, as data. Paths are of the host unless they say otherwise."""

from typing import Literal

import msgspec

from lxdpy.host.idmap import Idmap


class Limits(msgspec.Struct, frozen=True):
    """Bounds by control group; empty, None or 0 means unbounded."""

    cpus: str = ""
    """The set of CPUs to run on, in the kernel's form ("0-2,5")."""
    cpu_shares: int = 0
    """Weight against others when CPUs are short; 1024 is everybody's."""
    cpu_quota: tuple[int, int] | None = None
    """(microseconds of CPU, in each period of so many microseconds)."""
    memory: int = 0
    """Bytes."""
    memory_soft: bool = False
    """The limit holds only when the host is short of memory (`limits.memory.enforce=soft`)."""
    swap: bool = True
    """Whether pages may be swapped out."""
    swappiness: int | None = None
    """How readily, where the kernel is told so (control groups v1); 60 is everybody's."""
    disk_priority: int | None = None
    """0 to 10: weight of its disk requests against others'; 5 is everybody's."""
    hugepages: tuple[tuple[str, int], ...] = ()
    """(size as the kernel writes it, "2MB"; bytes in pages of that size)."""
    processes: int = 0


class DeviceNode(msgspec.Struct, frozen=True):
    """A device the container may use, and the node it finds. Its ids are the container's."""

    path: str
    """Inside, e.g. /dev/nvidia0."""
    major: int
    minor: int
    kind: Literal["c", "b"] = "c"
    mode: int = 0o660
    uid: int = 0
    gid: int = 0

    @property
    def rule(self) -> str:
        """As the devices controller wants it."""
        return f"{self.kind} {self.major}:{self.minor} rwm"

    @property
    def staged(self) -> str:
        """File name of the host's side, in the container's devices folder; LXD's way of writing it."""
        return "unix." + self.path.strip("/").replace("-", "--").replace("/", "-")


class Mount(msgspec.Struct, frozen=True):
    """One `lxc.mount.entry`; `target` is inside and relative to the root. Options as mount(8) has them."""

    source: str
    target: str
    options: str = "bind,create=dir"
    kind: str = "none"


class Nic(msgspec.Struct, frozen=True):
    """A network interface.

    veth: LXC makes a pair, one end on the bridge `link`, `host_name` its name there. phys: the existing
    interface `link` (perhaps one end of a pair of the caller's) moves into the container.
    """

    name: str
    link: str = ""
    kind: Literal["veth", "phys", "macvlan", "empty"] = "veth"
    host_name: str = ""
    hwaddr: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    """With prefix length, for LXC to set."""
    gateways: tuple[str, ...] = ()


class ContainerSpec(msgspec.Struct, frozen=True):
    """A container to start. What the user may set was checked before; what is forged is refused anyway."""

    name: str
    rootfs: str
    """Folder of the root file system, its files owned by the container's ids, not shifted."""
    idmap: Idmap | None
    """None: privileged, ids are the host's."""
    rootfs_is_mapped: bool = False
    """The mount at `rootfs` maps ids already (an overlay of mapped layers); LXC must not do it again."""
    hostname: str = ""
    """By default the name."""
    init: str = ""
    """By default /sbin/init."""
    architecture: str = ""
    """In LXC's words: linux64, linux32, x86_64, i686, aarch64, … By default the host's."""
    environment: dict[str, str] = {}
    limits: Limits = Limits()
    devices: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    nics: tuple[Nic, ...] = ()
    nesting: bool = False
    seccomp: str = ""
    """Text of the policy (`lxdpy.host.lxc.seccomp`); empty: none."""
    native_only: bool = False
    """Refuse system calls of 32-bit programs."""
    lxcfs: str = ""
    """Folder where lxcfs is mounted; empty: none."""
    apparmor: bool = False
    """The kernel has AppArmor."""
    prlimits: dict[str, str] = {}
    """By name without `lxc.prlimit.` ("nofile": "1024:4096")."""
    sysctls: dict[str, str] = {}
    first: str = ""
    """Script that its own /bin/sh runs before its init, confined as that is; empty: none."""
    raw: tuple[tuple[str, str], ...] = ()
    """Lines of `raw.lxc`; they come last and so have the last word."""
