"""dnsmasq: DHCP, router announcements and DNS on a managed bridge.

It runs on its own, not as the daemon's child: it puts itself into the background once its sockets are bound
(so a start that fails is an error with dnsmasq's own words, and one that returns is ready), goes on serving
while the daemon restarts, and needs nobody to wait for it. It is found again by its pid file; whether it is
ours, alive and up to date is told by its command line and network namespace: no further record can go stale.

Files below `$LXD_DIR/networks/<name>/`: dnsmasq.pid, dnsmasq.leases, dnsmasq.log, dnsmasq.hosts/ (one file a
NIC), raw-<hash>.conf (the key raw.dnsmasq). dnsmasq reads new files in dnsmasq.hosts by itself; for changed
and removed ones it wants SIGHUP.
"""

import asyncio
import hashlib
import logging
import os
import select
import signal
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster.errors import Invalid, Unavailable
from lxdpy.config.network import BRIDGE, Interface, interface_of, items, on
from lxdpy.host.network.driver import Network
from lxdpy.host.run import CommandFailed, run

log = logging.getLogger(__name__)

STOP_WITHIN = 5.0  # seconds; it ends within milliseconds unless its disk hangs
SHORTEST = 120  # seconds; dnsmasq takes no shorter leases
USER = "nobody"  # it binds and opens its files as root, then drops to this


class Files:
    """Where a network's files lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = folder / "dnsmasq.pid"
        self.leases = folder / "dnsmasq.leases"
        self.log = folder / "dnsmasq.log"
        self.hosts = folder / "dnsmasq.hosts"

    def raw(self, text: str) -> Path:
        """Named by content, so that a changed text changes the command line."""
        return self.folder / f"raw-{hashlib.sha256(text.encode()).hexdigest()[:12]}.conf"


def arguments(network: Network, files: Files) -> list[str]:
    """The whole command line, or [] when nothing is to be served. Pure."""
    config = network.config
    four, six = (interface_of(config, ip) for ip in ("ipv4", "ipv6"))
    if not four and not six:
        return []
    raw = config.get("raw.dnsmasq", "")
    return [
        "dnsmasq",
        f"--pid-file={files.pid}",
        f"--conf-file={files.raw(raw) if raw else '/dev/null'}",
        f"--log-facility={files.log}",
        f"--user={USER}",
        "--strict-order",
        "--bind-interfaces",
        "--except-interface=lo",
        f"--interface={network.name}",
        "--no-hosts",
        "--no-ping",  # a second's wait for each new lease, to find what our own lease file knows
        "--quiet-dhcp", "--quiet-dhcp6", "--quiet-ra",
        "--dhcp-no-override",
        "--dhcp-authoritative",
        "--dhcp-rapid-commit",
        f"--dhcp-leasefile={files.leases}",
        f"--dhcp-hostsdir={files.hosts}",
        *_names(network),
        *(_four(config, four) if four else ()),
        *(_six(network, six) if six else ()),
    ]  # fmt: skip


async def check_raw(raw: str) -> None:
    """Raises Invalid for lines that dnsmasq would not start with: those it takes end none that serves."""
    if not raw:
        return
    try:
        await run("dnsmasq", "--test", "--conf-file=-", stdin=raw + "\n", timeout=10)
    except CommandFailed as failure:
        raise Invalid(f"Invalid value for raw.dnsmasq: {failure.message}", key="raw.dnsmasq") from None


def _names(network: Network) -> list[str]:
    mode = BRIDGE.parsed(network.config, "dns.mode")
    if mode == "none":
        return ["--dhcp-ignore-names"]
    domain = BRIDGE.parsed(network.config, "dns.domain")
    search = ",".join(items(network.config, "dns.search"))
    return [
        f"--domain={domain}",
        f"--local=/{domain}/",
        f"--interface-name=_gateway.{domain},{network.name}",
        # Otherwise a client could take the name of an instance by asking for it.
        *(["--dhcp-ignore-names=tag:!known"] if mode == "managed" else []),
        *([f"--dhcp-option-force=119,{search}"] if search else []),
    ]


def _four(config: Mapping[str, str], own: Interface) -> list[str]:
    listen = [f"--listen-address={own.ip}"]
    if not on(config, "ipv4.dhcp"):
        return listen
    expiry = _seconds(BRIDGE.parsed(config, "ipv4.dhcp.expiry"))
    subnet = own.network
    everything = f"{subnet.network_address + 1}-{subnet.broadcast_address - 1}"
    ranges = items(config, "ipv4.dhcp.ranges") or (everything,)
    gateway = config.get("ipv4.dhcp.gateway")
    mtu = config.get("bridge.mtu", "1500") or "1500"
    return [
        *listen,
        *(f"--dhcp-range={_comma(one)},{subnet.netmask},{expiry}" for one in ranges),
        *([f"--dhcp-option-force=3,{gateway}"] if gateway else []),
        *([f"--dhcp-option-force=26,{mtu}"] if mtu != "1500" else []),
    ]


def _six(network: Network, own: Interface) -> list[str]:
    config = network.config
    always = [f"--listen-address={own.ip}", "--enable-ra"]
    if not on(config, "ipv6.dhcp"):
        return [*always, f"--dhcp-range=::,constructor:{network.name},ra-only"]
    if not on(config, "ipv6.dhcp.stateful"):
        return [*always, f"--dhcp-range=::,constructor:{network.name},ra-stateless,ra-names"]
    expiry = _seconds(BRIDGE.parsed(config, "ipv6.dhcp.expiry"))
    subnet = own.network
    everything = f"{subnet.network_address + 2}-{subnet.broadcast_address}"
    ranges = items(config, "ipv6.dhcp.ranges") or (everything,)
    return [*always, *(f"--dhcp-range={_comma(one)},{subnet.prefixlen},{expiry}" for one in ranges)]


def _comma(addresses: str) -> str:
    low, _, high = addresses.partition("-")
    return f"{low.strip()},{high.strip()}"


def _seconds(expiry: object) -> str:
    seconds = float(str(expiry))
    return "infinite" if seconds < 0 else str(max(SHORTEST, int(seconds)))


class Dnsmasq:
    """The dnsmasq of one network. Callers hold the network's lock."""

    def __init__(self, files: Files, proc: Path) -> None:
        self._files, self._proc = files, proc

    async def ensure(self, network: Network, *, fresh_link: bool = False) -> bool:
        """Have it run as the config says; whether it had to be started. `fresh_link`: the bridge is new."""
        wanted = arguments(network, self._files)
        if not wanted:
            await self.stop()
            return False
        if not fresh_link and self.is_as_wanted(network):
            return False
        await self.stop()
        self._prepare(network)
        await run(*wanted, timeout=30)
        return True

    def is_as_wanted(self, network: Network) -> bool:
        """Whether it runs as the config says, or does not where it need not."""
        wanted = arguments(network, self._files)
        return self._words(self._read_pid()) == wanted if wanted else not self._running()

    async def stop(self) -> None:
        """Raises Unavailable when it does not go."""
        handle = self._open()
        if handle is None:
            return
        try:
            for one in (signal.SIGTERM, signal.SIGKILL):
                _send(handle, one)
                if await asyncio.to_thread(_gone, handle):
                    break
            else:
                raise Unavailable(f"dnsmasq does not stop: {self._files.pid}")
        finally:
            os.close(handle)
        self._files.pid.unlink(missing_ok=True)

    def reread(self) -> None:
        """Have it read all of dnsmasq.hosts again."""
        handle = self._open()
        if handle is not None:
            _send(handle, signal.SIGHUP)
            os.close(handle)

    def _open(self) -> int | None:
        """A pidfd of our dnsmasq. Opened before it is looked at, so it cannot be of another by then."""
        try:
            handle = os.pidfd_open(self._read_pid())
        except OSError:
            return None
        if self._running():
            return handle
        os.close(handle)
        return None

    def _prepare(self, network: Network) -> None:
        files = self._files
        files.hosts.mkdir(parents=True, exist_ok=True)
        for folder in (files.folder, files.hosts):
            folder.chmod(0o755)  # it reads them as nobody
        for parent in files.folder.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                log.warning("dnsmasq cannot read below %s: no names or fixed addresses", parent)
        raw = network.config.get("raw.dnsmasq", "")
        for old in files.folder.glob("raw-*.conf"):
            if old != files.raw(raw):
                old.unlink()
        if raw:
            files.raw(raw).write_text(raw + "\n")

    def _read_pid(self) -> int:
        """0 when there is none."""
        try:
            return int(self._files.pid.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _running(self) -> bool:
        """Whether the process of the pid file is our dnsmasq; pids are used again."""
        return f"--pid-file={self._files.pid}" in self._words(self._read_pid())

    def _words(self, pid: int) -> list[str]:
        """Its command line; [] when it is gone, a zombie, or in another network namespace."""
        here = self._proc / str(pid)
        try:
            words = (here / "cmdline").read_bytes().split(b"\0")[:-1]
            same = os.stat(here / "ns/net").st_ino == os.stat(self._proc / "self/ns/net").st_ino
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return []
        return [os.fsdecode(word) for word in words] if same else []


def _send(handle: int, one: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, one)


def _gone(handle: int) -> bool:
    return bool(select.select([handle], [], [], STOP_WITHIN)[0])
