"""From an instance's expanded config and its devices' attachments to what LXC is told."""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from cluster.errors import Invalid
from lxdpy.config.instance import INSTANCE
from lxdpy.config.types import Allowance, CpuSet, Percent, boolean
from lxdpy.host.devices.driver import Attachment, Node
from lxdpy.host.devices.driver import Mount as DeviceMount
from lxdpy.host.devices.driver import Nic as DeviceNic
from lxdpy.host.idmap import Idmap
from lxdpy.host.intercept.confining import rules
from lxdpy.host.lxc import native
from lxdpy.host.lxc.seccomp import asks, policy
from lxdpy.host.lxc.spec import ContainerSpec, DeviceNode, Limits, Mount, Nic
from lxdpy.host.storage.driver import RootfsMount
from lxdpy.resources.instances import nvidia
from lxdpy.resources.instances.finishing import first_of
from lxdpy.resources.instances.ids import holes_of
from lxdpy.resources.instances.interception import switches_of
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Config

APPARMOR = Path("/sys/kernel/security/apparmor")
HUGE_PAGES = ("64KB", "1MB", "2MB", "1GB")
SHARES = 1024  # of an instance without limits.cpu.allowance, and of any other process
ARCHITECTURES = {"x86_64": "linux64", "i686": "linux32", "aarch64": "aarch64", "armv7l": "armv7l"}


FUSE = "security.syscalls.intercept.mount.fuse"
OLD_NAMES = {
    "allow": "whitelist",
    "deny": "blacklist",
    "deny_default": "blacklist_default",
}


def is_on(config: Config, name: str) -> bool:
    return INSTANCE.parsed(config, name) is True


def idmap_of(row: Instance, config: Config) -> Idmap | None:
    """The private range of host ids, and those let through; None for a privileged instance."""
    if is_on(config, "security.privileged"):
        return None
    ids = row.host_ids
    return Idmap(ids.base, ids.size, holes_of(config, ids.size))


def spec_of(
    row: Instance, config: Config, rootfs: RootfsMount, attached: Iterable[Attachment], lxcfs: str
) -> ContainerSpec:
    """See ContainerSpec. `lxcfs` is the folder where it is mounted, "" for none."""
    parts = list(attached)
    nodes = {node.path: node for part in parts for node in part.nodes}  # devices may share control files
    mounts = [mount for part in parts for mount in part.mounts]
    mounts = [mount for n, mount in enumerate(mounts) if not mount.common or mount not in mounts[:n]]
    return ContainerSpec(
        name=row.volume,
        hostname=row.name,
        rootfs=str(rootfs.path),
        rootfs_is_mapped=rootfs.mapped,
        idmap=idmap_of(row, config),
        architecture=ARCHITECTURES.get(row.architecture, ""),
        environment=environment_of(config, parts),
        limits=limits_of(row, config),
        devices=tuple(device_node(node) for node in nodes.values()),
        mounts=tuple(map(mount_entry, mounts)),
        nics=tuple(container_nic(nic) for part in parts for nic in part.nics),
        nesting=is_on(config, "security.nesting"),
        seccomp=seccomp_of(config),
        native_only=is_native_only(row, config),
        lxcfs=lxcfs,
        apparmor=APPARMOR.is_dir(),
        prlimits=prefixed(config, "limits.kernel."),
        sysctls=prefixed(config, "linux.sysctl."),
        first=first_of(parts),
        raw=(
            *apparmor_lines(config),
            *(nvidia.lines() if nvidia.wanted(config) else ()),
            *(line for part in parts for line in part.lxc),
            *raw_lines(config.get("raw.lxc", "")),
        ),
    )


def apparmor_lines(config: Config) -> list[tuple[str, str]]:
    """`raw.apparmor`; nothing where there is no AppArmor that could obey it."""
    lines = config.get("raw.apparmor", "").splitlines() if APPARMOR.is_dir() else []
    return [("lxc.apparmor.raw", line.strip()) for line in lines if line.strip()]


def modules_of(config: Config) -> tuple[str, ...]:
    """Those of the kernel that it needs loaded."""
    found = INSTANCE.parsed(config, "linux.kernel_modules")
    return tuple(str(name) for name in found) if isinstance(found, tuple) else ()


def environment_of(config: Config, parts: Iterable[Attachment]) -> dict[str, str]:
    """The user's; what devices set wins over it, and several devices' values of one name are listed."""
    found: dict[str, str] = {}
    for part in parts:
        for name, value in part.environment.items():
            if value not in (known := found[name].split(",") if name in found else []):
                found[name] = ",".join([*known, value])
    if nvidia.wanted(config):
        found = nvidia.environment(config, found)
    return prefixed(config, "environment.") | found


def prefixed(config: Config, prefix: str) -> dict[str, str]:
    return {
        key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix) and value
    }


def limits_of(row: Instance, config: Config) -> Limits:
    memory = INSTANCE.parsed(config, "limits.memory")
    if isinstance(memory, Percent):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * memory.value // 100
    allowance = INSTANCE.parsed(config, "limits.cpu.allowance")
    assert isinstance(allowance, Allowance)
    quota = None
    if allowance.quota:
        quota = (allowance.quota, allowance.period)
    shares = SHARES * allowance.percent // 100 - (10 - _priority(config, "limits.cpu.priority", 10))
    swap_priority, disk_priority = "limits.memory.swap.priority", "limits.disk.priority"
    return Limits(
        cpus=cpus_of(row, config),
        cpu_shares=0 if shares == SHARES else max(2, shares),
        cpu_quota=quota,
        memory=memory if isinstance(memory, int) else 0,
        memory_soft=config.get("limits.memory.enforce") == "soft",
        swap=is_on(config, "limits.memory.swap"),
        # 10, the highest, is what everybody has.
        swappiness=70 - _priority(config, swap_priority, 10) if config.get(swap_priority) else None,
        disk_priority=_priority(config, disk_priority, 5) if config.get(disk_priority) else None,
        hugepages=tuple(
            (pages, most)
            for pages in HUGE_PAGES
            if isinstance(most := INSTANCE.parsed(config, f"limits.hugepages.{pages}"), int)
        ),
        processes=int(config.get("limits.processes") or 0),
    )


def _priority(config: Config, name: str, usual: int) -> int:
    found = INSTANCE.parsed(config, name)
    return found if isinstance(found, int) else usual


def cpus_of(row: Instance, config: Config) -> str:
    """The set in the kernel's form. A count takes that many, beginning at a place of the instance's own."""
    wanted = INSTANCE.parsed(config, "limits.cpu")
    if not isinstance(wanted, CpuSet):
        return ""
    there = sorted(os.sched_getaffinity(0))
    if not wanted.cpus:
        start = zlib.crc32(row.key.encode()) % len(there)
        chosen = [*there[start:], *there[:start]][: wanted.count]
    elif not (chosen := [cpu for cpu in there if cpu in wanted.cpus]):
        # Those that are there will do, as in LXD; but where there are none LXD gives all, limiting nothing.
        raise Invalid(
            f"limits.cpu={config['limits.cpu']}: this member has none of these CPUs, "
            f"only some from {there[0]} to {there[-1]}",
            key="limits.cpu", value=config["limits.cpu"],
        )  # fmt: skip
    return ",".join(map(str, sorted(chosen)))


def is_native_only(row: Instance, config: Config) -> bool:
    """Whether 32-bit system calls are refused. Raises Invalid for an instance that is made of such."""
    name = "security.syscalls.deny_compat"
    wanted = config.get(name) or config.get("security.syscalls.blacklist_compat") or "false"
    if boolean(wanted) and row.architecture not in native.ARCHITECTURES:
        raise Invalid(f"{name}={wanted}: a {row.architecture} instance has no other system calls", key=name)
    return boolean(wanted)


def seccomp_of(config: Config) -> str:
    """Raises Invalid for a policy of the user's that asks where nobody would answer."""
    intercept = switches_of(config)
    found = config.get("raw.seccomp") or _policy_of(config, intercept)
    if not intercept and (line := asks(found)):
        key = "raw.seccomp" if config.get("raw.seccomp") else "security.syscalls"
        raise Invalid(
            f'{key}: "{line}" passes a system call on, but nobody would answer: this needs a key '
            "security.syscalls.intercept.* that is on, and an unprivileged instance; else say errno or kill",
            key=key, value=line,
        )  # fmt: skip
    if "mount" in intercept and config.get(FUSE):
        try:
            rules(found or policy())
        except ValueError as line:
            raise Invalid(
                f'{FUSE}: "{line}" of its policy of system calls is not understood, so no program '
                "that is started for it could be kept to that",
                key=FUSE, value=config[FUSE],
            ) from None  # fmt: skip
    return found


def _policy_of(config: Config, intercept: tuple[str, ...]) -> str:
    names = {new: config.get(f"security.syscalls.{new}", config.get(f"security.syscalls.{old}", ""))
             for new, old in OLD_NAMES.items()}  # fmt: skip
    return policy(
        deny_default=not names["deny_default"] or boolean(names["deny_default"]),
        deny=names["deny"],
        allow=names["allow"],
        intercept=intercept,
    )


def device_node(node: Node) -> DeviceNode:
    return DeviceNode(node.path, node.major, node.minor, node.kind, node.mode, node.uid, node.gid)


def mount_entry(mount: DeviceMount) -> Mount:
    """As `lxc.mount.entry`; idmapped mounts are made by liblxc itself."""
    options = [] if mount.filesystem else ["rbind" if mount.recursive else "bind"]
    options.append("create=dir" if mount.directory else "create=file")
    options += ["ro"] if mount.readonly else []
    options += ["optional"] if mount.optional else []
    options += ["idmap=container"] if mount.idmapped else []
    options += mount.options
    return Mount(mount.source, mount.target.lstrip("/"), ",".join(options), mount.filesystem or "none")


def container_nic(nic: DeviceNic) -> Nic:
    known = (nic.name, nic.link, nic.kind, nic.host_name, nic.hwaddr, nic.mtu)
    return Nic(*known, addresses=nic.addresses, gateways=nic.gateways)


def raw_lines(text: str) -> tuple[tuple[str, str], ...]:
    """`key = value` lines. Raises Invalid for others."""
    found = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = stripped.partition("=")
        if not equals or not key.strip().startswith("lxc."):
            raise Invalid(f"raw.lxc: not a line of LXC configuration: {stripped}", key="raw.lxc")
        found.append((key.strip(), value.strip()))
    return tuple(found)
