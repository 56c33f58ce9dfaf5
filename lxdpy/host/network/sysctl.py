"""Kernel settings of the network namespace we are in, below /proc/sys/net. Blocking, microseconds each."""

import errno
from pathlib import Path

GONE = (errno.ENOENT, errno.ENODEV)  # before it is opened, or after


def put(proc: Path, name: str, value: str) -> bool:
    """Set `name` (with slashes: "ipv4/ip_forward"); whether it had to be changed.

    Not written when it has the value: writing ip_forward resets what else was set per interface, even when
    it stays as it is. A setting this kernel lacks (IPv6 switched off), or whose interface has just gone,
    counts as unchanged.
    """
    return _set(proc / "sys/net" / name, value)


def _set(path: Path, value: str, *, only: str = "") -> bool:
    """Whatever it has now, or `only` that."""
    try:
        now = path.read_text().strip()
        if now == value or (only and now != only):
            return False
        path.write_text(value)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return True


def forward_ipv4(proc: Path) -> None:
    """Let this host route IPv4. Never taken back: others may have come to rely on it."""
    put(proc, "ipv4/ip_forward", "1")


def forward_ipv6(proc: Path) -> None:
    """Let this host route IPv6, and go on hearing the routers it learned its own address from.

    A forwarding host ignores router announcements unless accept_ra is 2 (kernel's ip-sysctl.txt), so each
    interface that accepted them is told so first.
    """
    for interface in (proc / "sys/net/ipv6/conf").glob("*"):
        _set(interface / "accept_ra", "2", only="1")
    put(proc, "ipv6/conf/all/forwarding", "1")


def prepare_bridge(proc: Path, bridge: str, *, ipv6: bool) -> None:
    """A bridge of ours needs no address from others and need not ask whether its own is free."""
    conf = f"ipv6/conf/{bridge}"
    put(proc, f"{conf}/disable_ipv6", "0" if ipv6 else "1")
    if ipv6:
        put(proc, f"{conf}/autoconf", "0")
        put(proc, f"{conf}/accept_ra", "0")
        put(proc, f"{conf}/accept_dad", "0")
