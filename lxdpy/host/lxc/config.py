"""A container as lines of LXC's configuration. PURE: the same spec gives the same lines."""

from collections.abc import Iterator

from cluster.errors import Invalid
from lxdpy.host.lxc.limits import CgroupLayout, items
from lxdpy.host.lxc.spec import ContainerSpec, Mount, Nic

Line = tuple[str, str]

DEFAULT_DEVICES = (
    "c *:* m",  # making nodes is harmless, opening them is what counts; and user namespaces forbid it anyway
    "b *:* m",
    "c 136:* rwm",  # pts
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 10:229 rwm",  # fuse
    "c 10:200 rwm",  # net/tun
)

FIRST = "unix.first"  # file of what is to be run before the init, among the device nodes
HOOK = "/dev/.lxdpy-first"  # the same, inside
HOST_MOUNTS = (
    Mount("/dev/fuse", "dev/fuse", "bind,create=file,optional"),
    Mount("/dev/net/tun", "dev/net/tun", "bind,create=file,optional"),
    Mount("/dev/mqueue", "dev/mqueue", "rbind,create=dir,optional"),
    Mount("/proc/sys/fs/binfmt_misc", "proc/sys/fs/binfmt_misc", "rbind,create=dir,optional"),
    Mount("/sys/fs/fuse/connections", "sys/fs/fuse/connections", "rbind,create=dir,optional"),
    Mount("/sys/fs/pstore", "sys/fs/pstore", "rbind,create=dir,optional"),
    Mount("/sys/kernel/config", "sys/kernel/config", "rbind,create=dir,optional"),
    Mount("/sys/kernel/debug", "sys/kernel/debug", "rbind,create=dir,optional"),
    Mount("/sys/kernel/security", "sys/kernel/security", "rbind,create=dir,optional"),
    Mount("/sys/kernel/tracing", "sys/kernel/tracing", "rbind,create=dir,optional"),
)
"""systemd calls itself degraded when it cannot mount these; the host's, bound, need no right to mount."""

NESTING_MOUNTS = (
    Mount("proc", "dev/.lxc/proc", "create=dir,optional", "proc"),
    Mount("sys", "dev/.lxc/sys", "create=dir,optional", "sysfs"),
)
"""The kernel lets a user namespace mount proc and sysfs only where one is visible that nothing covers."""

LXCFS_FILES = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")

PRIVILEGED_DROP = "sys_time sys_module sys_rawio mac_admin mac_override"


class Files:
    """Where the daemon keeps what belongs to one container; all absolute paths of the host."""

    def __init__(self, *, logs: str, run: str, devices: str, groups: str) -> None:
        self.log = f"{logs}/lxc.log"
        self.console = f"{logs}/console.log"
        self.seccomp = f"{run}/seccomp"
        self.devices = devices
        self.groups = groups
        """Control group above monitor/NAME and payload/NAME; that of another daemon on this host differs."""


def lines(
    spec: ContainerSpec, files: Files, layout: CgroupLayout, shared: tuple[Mount, ...] = HOST_MOUNTS
) -> list[Line]:
    """LXC's keys and values, in order; `shared`: those of HOST_MOUNTS that this host has.

    Raises Invalid for values that would break out of their line.
    """
    found = [
        ("lxc.log.file", files.log),
        ("lxc.log.level", "warn"),
        ("lxc.console.buffer.size", "auto"),
        ("lxc.console.size", "auto"),
        ("lxc.console.logfile", files.console),
        ("lxc.autodev", "1"),
        ("lxc.pty.max", "1024"),
        ("lxc.tty.max", "0"),
        ("lxc.uts.name", spec.hostname or spec.name),
        *_identity(spec, files),
        *_groups(spec, files, layout),
        *_mounts(spec, files, shared),
        *_nics(spec.nics),
        *_process(spec),
        *spec.raw,
    ]
    for key, value in found:
        if "\n" in key + value or "\0" in key + value or "=" in key:
            raise Invalid(f"Not a line of LXC configuration: {key} = {value!r}")
    return found


def text(found: list[Line]) -> str:
    """As a file."""
    return "".join(f"{key} = {value}\n" for key, value in found)


def _identity(spec: ContainerSpec, files: Files) -> Iterator[Line]:
    """Who the container is to the kernel: ids, rights, root."""
    if spec.architecture:
        yield "lxc.arch", spec.architecture
    if spec.idmap is None:
        yield "lxc.cap.drop", PRIVILEGED_DROP
    else:
        for kind, ids in (("u", spec.idmap.users), ("g", spec.idmap.groups)):
            for inside, host, length in ids:
                yield "lxc.idmap", f"{kind} {inside} {host} {length}"
    if spec.apparmor:
        yield "lxc.apparmor.profile", "generated"
        yield "lxc.apparmor.allow_nesting", "1" if spec.nesting else "0"
    else:
        yield "lxc.apparmor.profile", "unconfined"
    if spec.seccomp:
        yield "lxc.seccomp.profile", files.seccomp
    if spec.native_only:
        yield "lxc.seccomp.allow_nesting", "1"  # beside our own filter, LXC's
    yield "lxc.rootfs.path", f"dir:{spec.rootfs}"
    if spec.idmap is not None and not spec.rootfs_is_mapped:
        yield "lxc.rootfs.options", "idmap=container"


def _groups(spec: ContainerSpec, files: Files, layout: CgroupLayout) -> Iterator[Line]:
    """Control groups with fixed names: by default LXC appends -1, -2, … when an old one is in the way."""
    yield "lxc.cgroup.dir.monitor", f"{files.groups}/monitor/{spec.name}"
    yield "lxc.cgroup.dir.monitor.pivot", f"{files.groups}/pivot"
    yield "lxc.cgroup.dir.container", f"{files.groups}/payload/{spec.name}"
    # Processes live one level below the limits, so root inside cannot lift them.
    yield "lxc.cgroup.dir.container.inner", "ns"
    devices = "lxc.cgroup.devices" if "devices" in layout.legacy else "lxc.cgroup2.devices"
    yield f"{devices}.deny", "a"
    for rule in (*DEFAULT_DEVICES, *(node.rule for node in spec.devices)):
        yield f"{devices}.allow", rule
    for item in items(spec.limits, layout):
        version = "" if layout.version(item.controller) == 1 else "2"
        yield f"lxc.cgroup{version}.{item.file}", item.value


def _mounts(spec: ContainerSpec, files: Files, shared: tuple[Mount, ...]) -> Iterator[Line]:
    rights = "mixed" if spec.idmap is None else "rw"
    yield "lxc.mount.auto", f"proc:{rights} sys:{rights} cgroup:mixed"
    entries = [*shared]
    if spec.nesting:
        entries += NESTING_MOUNTS
    if spec.lxcfs:
        entries += [
            Mount(f"{spec.lxcfs}/proc/{name}", f"proc/{name}", "bind,optional") for name in LXCFS_FILES
        ]
        cpus = "sys/devices/system/cpu"
        entries.append(Mount(f"{spec.lxcfs}/{cpus}", cpus, "bind,optional"))
    for node in spec.devices:
        target = node.path.strip("/")
        # Optional, as one that was taken out since is not there when LXC itself restarts the container.
        entries.append(Mount(f"{files.devices}/{node.staged}", target, "bind,create=file,optional"))
    if spec.first:
        entries.append(Mount(f"{files.devices}/{FIRST}", HOOK.lstrip("/"), "bind,ro,create=file"))
        yield "lxc.hook.start", HOOK
    for entry in (*entries, *spec.mounts):
        words = (entry.source, entry.target.strip("/"), entry.kind, entry.options)
        yield "lxc.mount.entry", " ".join(_escaped(word) for word in words) + " 0 0"


def _escaped(word: str) -> str:
    """As fstab wants it; LXC reads entries with getmntent(3)."""
    for character in ("\\", " ", "\t", "\n"):
        word = word.replace(character, f"\\{ord(character):03o}")
    return word


def _nics(nics: tuple[Nic, ...]) -> Iterator[Line]:
    if not nics:
        yield "lxc.net.0.type", "empty"  # a namespace of its own with nothing in it, and not the host's
    for index, nic in enumerate(nics):
        prefix = f"lxc.net.{index}"
        yield f"{prefix}.type", nic.kind
        if nic.kind == "empty":
            continue
        yield f"{prefix}.flags", "up"
        yield f"{prefix}.name", nic.name
        if nic.link:
            yield f"{prefix}.link", nic.link
        if nic.hwaddr:
            yield f"{prefix}.hwaddr", nic.hwaddr
        if nic.mtu:
            yield f"{prefix}.mtu", str(nic.mtu)
        if nic.kind == "veth" and nic.host_name:
            yield f"{prefix}.veth.pair", nic.host_name
        if nic.kind == "macvlan":
            yield f"{prefix}.macvlan.mode", "bridge"
        yield from _nic_addresses(prefix, nic)


def _nic_addresses(prefix: str, nic: Nic) -> Iterator[Line]:
    for address in nic.addresses:
        yield f"{prefix}.ipv{6 if ':' in address else 4}.address", address
    for gateway in nic.gateways:
        yield f"{prefix}.ipv{6 if ':' in gateway else 4}.gateway", gateway


def _process(spec: ContainerSpec) -> Iterator[Line]:
    """The first process: what it is, what it finds."""
    if spec.init:
        yield "lxc.init.cmd", spec.init
    for name, value in sorted(spec.environment.items()):
        yield "lxc.environment", f"{name}={value}"
    for name, value in sorted(spec.prlimits.items()):
        yield f"lxc.prlimit.{name}", value
    for name, value in sorted(spec.sysctls.items()):
        yield f"lxc.sysctl.{name}", value
