"""A bridge and its clients, each in a network namespace of its own, for tests."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxdpy.host.devices.driver import Nic, Seat
from lxdpy.host.network.driver import Network, NetworkDriver
from lxdpy.host.network.registry import networks
from lxdpy.host.run import CommandFailed, run

NETWORK = Network(
    name="lxdpytest1",
    config={"ipv4.address": "10.199.9.1/24", "ipv4.nat": "true", "ipv6.address": "fd42:9::1/64"},
)


LEASE = "#!/bin/sh\n[ $1 = bound ] && ip addr add $ip/$mask dev $interface && echo $ip\nexit 0\n"


def driver(folder: Path) -> NetworkDriver:
    return networks(folder / "lxd").driver_for("bridge")


def seat(name: str = "c1", **options: str) -> Seat:
    return Seat(
        instance=f"default/{name}",
        name="eth0",
        options={"type": "nic", "network": NETWORK.name, **options},
        network=NETWORK,
    )


class Client:
    """A network namespace that a NIC is moved into, as a container's would be."""

    def __init__(self, pid: int, script: Path) -> None:
        self.pid, self._script = pid, script

    async def take(self, nic: Nic) -> None:
        await run("ip", "link", "set", nic.link, "netns", str(self.pid), "name", "eth0")
        await self.run("ip", "link", "set", "eth0", "up")

    async def run(self, *argv: str, timeout: float = 20) -> str:
        return (await run("nsenter", "-t", str(self.pid), "-n", *argv, timeout=timeout)).stdout

    async def lease(self) -> str:
        """Ask for an address, and use it."""
        said = await self.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-s", str(self._script))
        return said.split()[-1]

    async def reaches(self, address: str) -> bool:
        try:
            await self.run("busybox", "ping", "-c", "1", "-W", "1", address)
        except CommandFailed:
            return False
        return True


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[Client]:
    script = folder / "lease"
    script.write_text(LEASE)
    script.chmod(0o755)
    child = await asyncio.create_subprocess_exec("unshare", "-n", "sleep", "60")
    try:
        async with asyncio.timeout(5):
            while os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                await asyncio.sleep(0.005)
        yield Client(child.pid, script)
    finally:
        child.kill()
        await child.wait()


async def links(*kind: str) -> set[str]:
    """Names of the interfaces of that kind, or all."""
    words = ["type", *kind] if kind else []
    shown = (await run("ip", "-o", "link", "show", *words)).stdout
    return {line.split(": ")[1].partition("@")[0] for line in shown.splitlines()}


async def ports(own: NetworkDriver) -> tuple[str, ...]:
    state = await own.state(NETWORK)
    assert state.bridge is not None
    return state.bridge.upper_devices
