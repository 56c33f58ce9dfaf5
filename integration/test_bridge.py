"""A managed bridge on a real kernel: DHCP, names, and what a restarted daemon finds.

All in a network namespace of its own, without a way out; clients live in further ones.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cluster.errors import Invalid, Unavailable
from integration.clients import NETWORK, client, driver, links, ports, seat
from integration.containers import alive, in_namespaces
from lxdpy.host.devices.nic_bridged import NicBridged
from lxdpy.host.devices.nic_p2p import NicP2p
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.network.bridge import NotOurs
from lxdpy.host.network.driver import Network, NetworkDriver
from lxdpy.host.network.veth import NameTaken
from lxdpy.host.run import CommandFailed, run
from tests.contracts.network import PROMISES

pytestmark = pytest.mark.root


def pid_of(folder: Path) -> int:
    return int((folder / "lxd/networks" / NETWORK.name / "dnsmasq.pid").read_text())


@pytest.mark.parametrize("promise", PROMISES)
def test_the_bridge_keeps(promise: Callable[[NetworkDriver], Awaitable[None]]) -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await promise(own)
        for name in own.made():
            await own.remove(Network(name=name))

    in_namespaces(scenario)


def test_a_client_gets_an_address_and_its_name_resolves() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        (made,) = (await nic.start(seat())).nics
        async with client(folder) as guest:
            await guest.take(made)
            address = await guest.lease()
            assert address.startswith("10.199.9.")
            assert await guest.reaches("10.199.9.1")
            assert address in await guest.run("busybox", "nslookup", "c1.lxd", "10.199.9.1")
            given = [lease for lease in await own.leases(NETWORK) if lease.address == address]
            assert [(one.hostname, one.hwaddr, one.type) for one in given] == [("c1", made.hwaddr, "dynamic")]
        await nic.stop(seat())
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_dnsmasq_outlives_the_daemon_and_is_found_again() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        await driver(folder).ensure(NETWORK)
        first = pid_of(folder)
        await driver(folder).ensure(NETWORK)
        assert pid_of(folder) == first
        changed = Network(name=NETWORK.name, config={**NETWORK.config, "dns.domain": "example"})
        await driver(folder).ensure(changed)
        second = pid_of(folder)
        assert second != first
        assert not alive(first)
        assert driver(folder).serves(changed)
        os.kill(second, signal.SIGKILL)
        while alive(second):
            await asyncio.sleep(0.02)
        assert not driver(folder).serves(changed)
        await driver(folder).ensure(changed)
        third = pid_of(folder)
        assert alive(third)
        await run("ip", "link", "del", NETWORK.name)
        await driver(folder).ensure(changed)
        assert pid_of(folder) != third  # its sockets were bound to the old bridge
        last = pid_of(folder)
        await driver(folder).remove(changed)
        assert not alive(last)
        assert (await run("nft", "list", "tables")).stdout == ""

    in_namespaces(scenario)


def test_a_broken_config_is_an_error_in_dnsmasqs_words() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        broken = Network(name=NETWORK.name, config={**NETWORK.config, "raw.dnsmasq": "no-such-option"})
        with pytest.raises(Invalid, match=r"^Invalid value for raw\.dnsmasq: .*bad option"):
            await driver(folder).try_out(broken.config)
        await driver(folder).try_out({**NETWORK.config, "raw.dnsmasq": "log-dhcp"})
        with pytest.raises(CommandFailed, match="bad option"):
            await driver(folder).ensure(broken)
        await driver(folder).ensure(NETWORK)
        assert alive(pid_of(folder))
        await driver(folder).remove(NETWORK)

    in_namespaces(scenario)


def test_an_interface_that_is_not_ours_is_left_alone() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        await run("ip", "link", "add", NETWORK.name, "type", "bridge")
        own = driver(folder)
        with pytest.raises(NotOurs):
            await own.ensure(NETWORK)
        with pytest.raises(Unavailable, match=NETWORK.name):
            await NicBridged(own).start(seat())
        with pytest.raises(NotOurs):
            await own.ensure(NETWORK)
        await own.remove(NETWORK)
        assert NETWORK.name in await links()
        nic = NicP2p()
        with pytest.raises(NameTaken):
            await nic.start(seat(host_name=NETWORK.name))
        await nic.stop(seat(host_name=NETWORK.name))
        assert NETWORK.name in await links()

    in_namespaces(scenario)


def test_external_interfaces_come_and_go_with_the_config() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        for name in ("ext0", "ext1"):
            await run("ip", "link", "add", name, "type", "veth", "peer", "name", f"far{name}")
        await run("ip", "addr", "add", "10.5.5.5/24", "dev", "ext1")
        await own.ensure(with_externals("ext0"))
        assert await ports(own) == ("ext0",)
        with pytest.raises(NotOurs, match="ext1"):
            await own.ensure(with_externals("ext0,ext1"))
        await own.ensure(NETWORK)
        assert await ports(own) == ()
        await own.remove(NETWORK)

    in_namespaces(scenario)


def with_externals(names: str) -> Network:
    return Network(name=NETWORK.name, config={**NETWORK.config, "bridge.external_interfaces": names})


def test_forwarding_is_switched_on_only_when_asked() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        forwarding = Path("/proc/sys/net/ipv4/ip_forward")
        assert forwarding.read_text() == "0\n"
        closed = Network(name=NETWORK.name, config={"ipv4.address": "10.199.9.1/24", "ipv4.routing": "false"})
        await own.ensure(closed)
        assert forwarding.read_text() == "0\n"
        await own.ensure(NETWORK)
        assert forwarding.read_text() == "1\n"
        await own.remove(NETWORK)

    in_namespaces(scenario)
