"""PURE: what a restricted project keeps its instances and profiles from. The texts are LXD's.

`restricted.containers.privilege=isolated` asks for no more than `unprivileged`: here every id map is private.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cluster.errors import Forbidden
from lxdpy.config.project import PROJECT
from lxdpy.config.types import number_set
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.model import Project, on

# Keys by which one may reach beyond a container; those of `security.syscalls.intercept` that are switches are
# told apart from those that widen what is let through.
LOW_LEVEL = frozenset((
    "boot.host_shutdown_timeout", "linux.kernel_modules", "raw.apparmor", "raw.lxc", "raw.seccomp",
    "security.devlxd.images", "security.idmap.base", "security.idmap.size",
    "security.syscalls.intercept.mount.allowed", "security.syscalls.intercept.mount.shift",
    "security.syscalls.intercept.sched_setscheduler", "security.syscalls.intercept.sysinfo",
))  # fmt: skip
INTERCEPT = "security.syscalls.intercept."
FUSE = "security.syscalls.intercept.mount.fuse"  # the one that is no switch
# Device types that a key lets through or not, with LXD's words for them.
TYPES = {
    "gpu": "GPU devices", "infiniband": "Infiniband devices", "pci": "PCI devices", "proxy": "Proxy devices",
    "unix-block": "Unix block devices", "unix-char": "Unix character devices",
    "unix-hotplug": "Unix hotplug devices", "usb": "USB devices",
}  # fmt: skip


class Subject(NamedTuple):
    """What is looked at: `container "c1"` or `profile "p"`, with its own and inherited config and devices."""

    label: str
    config: Config
    devices: Devices


class Rules:
    """The `restricted.*` keys of a project that is restricted."""

    def __init__(self, project: Project) -> None:
        self.project = project.name
        self._config = project.config

    def says(self, key: str) -> str:
        """The value of `restricted.<key>`; what is not set is at its strictest."""
        name = f"restricted.{key}"
        return self._config.get(name) or PROJECT.default(name) or ""

    def allows(self, key: str) -> bool:
        return self.says(key) == "allow"

    def items(self, key: str) -> list[str]:
        return [one for word in self.says(key).split(",") if (one := word.strip())]


def check_subject(rules: Rules, subject: Subject) -> None:
    """Raises Forbidden for the first thing that the project does not allow."""
    where = f'on {subject.label} of project "{rules.project}"'
    for key, value in sorted(subject.config.items()):
        if value and (why := _config_refused(rules, key, value)):
            raise Forbidden(f'Invalid value "{value}" for config "{key}" {where}: {why}', key=key)
        if value and _is_low_level(rules, key, value):
            what = f'"{key}" element 0' if key == "raw.idmap" else f'config "{key}"'
            raise Forbidden(f"Use of low-level {what} {where} is forbidden", key=key)
    for name, device in sorted(subject.devices.items()):
        if why := _device_refused(rules, device):
            raise Forbidden(f'Invalid device "{name}" {where}: {why}', device=name)


def _config_refused(rules: Rules, key: str, value: str) -> str:
    """Why, "" if it is not."""
    config = {key: value}
    if key == "security.nesting" and on(config, key) and not rules.allows("containers.nesting"):
        return "Container nesting is forbidden"
    if key == "security.privileged" and on(config, key) and not rules.allows("containers.privilege"):
        return "Privileged containers are forbidden"
    if key.startswith(INTERCEPT) and key not in LOW_LEVEL and (on(config, key) or key == FUSE):
        return (
            "" if rules.allows("containers.interception") else "Container syscall interception is forbidden"
        )
    return ""


def _is_low_level(rules: Rules, key: str, value: str) -> bool:
    if rules.allows("containers.lowlevel"):
        return False
    return key in LOW_LEVEL or (key == "raw.idmap" and not _owns(rules, value))


def _owns(rules: Rules, raw_idmap: str) -> bool:
    """Whether all host ids that are named are among those that the project may use."""
    for line in raw_idmap.splitlines():
        which, host, *_ = [*line.split(), "", ""]
        kinds = ("uid", "gid") if which == "both" else (which,)
        if any(not number_set(host or "0") <= _ids(rules, kind) for kind in kinds if line.strip()):
            return False
    return True


def _ids(rules: Rules, kind: str) -> frozenset[int]:
    text = rules.says(f"idmap.{kind}") if kind in ("uid", "gid") else ""
    return number_set(text) if text else frozenset()


def _device_refused(rules: Rules, device: Mapping[str, str]) -> str:
    """Why, "" if it is not."""
    kind = device.get("type", "")
    if kind in TYPES:
        return "" if rules.allows(f"devices.{kind}") else f"{TYPES[kind]} are forbidden"
    if kind == "nic":
        return _nic_refused(rules, device)
    return _disk_refused(rules, device) if kind == "disk" else ""


def _nic_refused(rules: Rules, device: Mapping[str, str]) -> str:
    rule = rules.says("devices.nic")
    if rule == "block":
        return "Network devices are forbidden"
    if rule == "managed" and not device.get("network"):
        return "Only managed network devices are allowed"
    used, known = device.get("network") or device.get("parent"), rules.items("networks.access")
    return "Network not allowed in project" if used and known and used not in known else ""


def _disk_refused(rules: Rules, device: Mapping[str, str]) -> str:
    rule = rules.says("devices.disk")
    if device.get("path") == "/" and device.get("pool"):
        return ""
    if rule == "block":
        return "Disk devices are forbidden"
    if device.get("pool"):
        return ""
    if rule == "managed":
        return "Attaching disks not backed by a pool is forbidden"
    source, allowed = device.get("source", ""), rules.items("devices.disk.paths")
    if not allowed or any(source == top or source.startswith(f"{top.rstrip('/')}/") for top in allowed):
        return ""
    return f'Disk source path "{source}" not allowed'
