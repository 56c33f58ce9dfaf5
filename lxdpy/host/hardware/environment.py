"""What GET /1.0 says of host and kernel in "environment"; features as "true" or "false", LXD's way."""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from cluster.errors import Unsupported
from lxdpy.host.hardware.files import kernel_release, text
from lxdpy.host.paths import HostRoot
from lxdpy.host.run import CommandFailed, run

FIREWALL = "nftables"
OS_RELEASE = Path("/etc/os-release")

# Kernels that brought what LXD tells its clients of.
UNPRIVILEGED_FILE_CAPABILITIES = (4, 14)
UEVENT_INJECTION = (4, 18)
NETNSID_GETIFADDRS = (5, 0)
SECCOMP_LISTENER = (5, 0)
SECCOMP_CONTINUE = (5, 5)
SECCOMP_ADDFD = (5, 9)
IDMAPPED_MOUNTS = (5, 12)

LXC_FEATURES = {
    (4, 0): (
        "cgroup2", "devpts_fd", "mount_injection_file", "network_gateway_device_route", "network_ipvlan",
        "network_l2proxy", "network_phys_macvlan_mtu", "network_veth_router", "pidfd",
        "seccomp_allow_deny_syntax", "seccomp_notify", "seccomp_proxy_send_notify_fd",
    ),
    (5, 0): ("core_scheduling", "idmapped_mounts_v2"),
}  # fmt: skip
"""Extensions of liblxc's API that LXD's clients are told of, by the release whose updates had them."""

STORAGE_PROGRAMS: dict[str, tuple[tuple[str, ...], bool]] = {
    "btrfs": (("btrfs", "--version"), False),
    "ceph": (("rbd", "--version"), True),
    "dir": ((), False),
    "lvm": (("lvm", "version"), False),
    "zfs": (("zfs", "version"), False),
}
"""What tells a storage driver's version, and whether its volumes are the same on every member."""

SECOND_ARCHITECTURES = {"x86_64": "i686", "aarch64": "armv7l", "ppc64le": "", "s390x": ""}


def kernel(root: HostRoot) -> dict[str, str]:
    """kernel, kernel_version, kernel_architecture."""
    return {
        "kernel": text(root.proc / "sys/kernel/ostype") or "Linux",
        "kernel_version": kernel_release(root.proc),
        "kernel_architecture": os.uname().machine,
    }


def kernel_features(root: HostRoot) -> dict[str, str]:
    version = _release(kernel_release(root.proc))
    listens = "user_notif" in text(root.proc / "sys/kernel/seccomp/actions_avail").split()
    return _words(
        {
            "idmapped_mounts": version >= IDMAPPED_MOUNTS,
            "netnsid_getifaddrs": version >= NETNSID_GETIFADDRS,
            "seccomp_listener": listens and version >= SECCOMP_LISTENER,
            "seccomp_listener_add_fd": listens and version >= SECCOMP_ADDFD,
            "seccomp_listener_continue": listens and version >= SECCOMP_CONTINUE,
            "shiftfs": False,
            "uevent_injection": version >= UEVENT_INJECTION,
            "unpriv_fscaps": version >= UNPRIVILEGED_FILE_CAPABILITIES,
        }
    )


def lxc_features(version: str) -> dict[str, str]:
    """`version`: of liblxc; "" for none installed."""
    release = _release(version)
    return _words({name: release >= since for since, names in LXC_FEATURES.items() for name in names})


def architectures() -> list[str]:
    """Those whose programs run here, the host's own first."""
    own = os.uname().machine
    return [own, *filter(None, [SECOND_ARCHITECTURES.get(own, "")])]


def operating_system(path: Path = OS_RELEASE) -> dict[str, str]:
    """os_name, os_version. Source: os-release(5)."""
    found = re.finditer(r"""^([A-Z_]+)=(["']?)(.*)\2$""", text(path), re.MULTILINE)
    known = {line[1]: line[3] for line in found}
    return {"os_name": known.get("NAME", ""), "os_version": known.get("VERSION_ID", "")}


_environments: dict[HostRoot, dict[str, Any]] = {}  # every GET of /1.0 shows it


async def environment(root: HostRoot) -> dict[str, Any]:
    """All of the above and liblxc's version, under LXD's names. Looked at once: kernels stay until a boot."""
    if root not in _environments:
        _environments[root] = await _look(root)
    return _environments[root]


async def _look(root: HostRoot) -> dict[str, Any]:
    version = await lxc_version()
    return {
        **kernel(root),
        "kernel_features": await asyncio.to_thread(kernel_features, root),
        "lxc_features": lxc_features(version),
        **operating_system(),
        "architectures": architectures(),
        "firewall": FIREWALL,
        "driver": "lxc",
        "driver_version": version,
    }


_versions: dict[tuple[str, ...], str] = {}  # of programs; they are not exchanged under a running daemon


async def program_version(*argv: str) -> str:
    """The first number with dots that the program prints; "" when it is not installed. Asked once."""
    if argv not in _versions:
        try:
            printed = (await run(*argv, timeout=10)).stdout
        except (CommandFailed, Unsupported):
            printed = ""
        found = re.search(r"\d+(?:\.\d+)+", printed)
        _versions[argv] = found[0] if found else ""
    return _versions[argv]


async def storage_drivers() -> list[dict[str, Any]]:
    """LXD's "storage_supported_drivers": those whose programs are installed here."""
    found = []
    for name, (argv, remote) in STORAGE_PROGRAMS.items():
        version = await program_version(*argv) if argv else "1"
        if version:
            found.append({"Name": name, "Version": version, "Remote": remote})
    return found


async def lxc_version() -> str:
    return await program_version("lxc-start", "--version")


def _release(version: str) -> tuple[int, int]:
    """The first two numbers; (0, 0) for none."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _words(values: dict[str, bool]) -> dict[str, str]:
    return {name: str(value).lower() for name, value in values.items()}
