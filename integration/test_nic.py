"""NICs on a real kernel: addresses, filters, limits, and containers that come and go with them."""

import asyncio
import contextlib
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import AF_INET, AF_PACKET, SOCK_DGRAM, SOCK_RAW, socket

import pytest
from msgspec.structs import replace

from cluster.errors import Invalid, Unavailable
from integration.clients import NETWORK, Client, client, driver, links, ports, seat
from integration.containers import in_namespaces, sh, spec
from lxdpy.host.devices.driver import DeviceDriver, Nic, Seat
from lxdpy.host.devices.infiniband import Infiniband
from lxdpy.host.devices.nic_bridged import NicBridged
from lxdpy.host.devices.registry import devices
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.lxc.spec import Nic as SpecNic
from lxdpy.host.network import nftables, probe
from lxdpy.host.run import run
from tests.contracts.devices import PROMISES as DEVICE_PROMISES
from tests.lxdpy.host.devices.infiniband_files import card

pytestmark = pytest.mark.root


@pytest.mark.parametrize("promise", DEVICE_PROMISES)
def test_nics_keep(promise: Callable[[DeviceDriver, Seat], Awaitable[None]]) -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        await run("ip", "link", "add", "other", "type", "bridge")
        plain = Seat(instance="default/c1", name="eth0", options={"type": "nic", "nictype": "p2p"})
        parent = {"type": "nic", "nictype": "bridged", "parent": "other"}
        await run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        routed = {"type": "nic", "nictype": "routed", "parent": "up0", "ipv4.address": "10.5.5.5",
                  "ipv6.address": "fd05::5", "limits.max": "5Mbit", "ipv4.host_table": "77",
                  "ipv4.neighbor_probe": "false", "ipv6.neighbor_probe": "false"}  # fmt: skip
        limited = {**plain.options, "limits.egress": "5Mbit"}
        macvlan = {"type": "nic", "nictype": "macvlan", "parent": "up0"}
        physical = {"type": "nic", "nictype": "physical", "parent": "up1", "mtu": "1400"}
        others = [replace(plain, options=one) for one in (parent, limited, routed, macvlan, physical)]
        for one in (seat(), seat(host_name="mine"), plain, *others):
            await promise(devices(own).driver_for(one.options), one)
            assert await links("veth") == {"up0", "up1"}
            assert await links("macvlan") == set()
        assert "lxdpy_nic" not in (await run("nft", "list", "tables")).stdout
        assert (await run("ip", "neigh", "show", "proxy")).stdout == ""
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_a_fixed_address_is_given_at_once_and_can_change() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        for address in ("10.199.9.77", "10.199.9.88"):
            fixed = seat(**{"ipv4.address": address, "hwaddr": "00:16:3e:00:00:07"})
            (made,) = (await nic.start(fixed)).nics
            async with client(folder) as guest:
                await guest.take(made)
                assert await guest.lease() == address
            await nic.stop(fixed)
        static = {lease.address for lease in await own.leases(NETWORK) if lease.type == "static"}
        assert static == {"10.199.9.88"}  # kept for the stopped instance
        with pytest.raises(Invalid, match="not in a subnet"):
            await nic.start(seat(**{"ipv4.address": "10.1.1.1"}))
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_a_filtered_client_cannot_use_another_address() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        options = {
            "ipv4.address": "10.199.9.77",
            "security.mac_filtering": "true",
            "security.ipv4_filtering": "true",
        }
        started = await nic.start(seat(**options))
        async with client(folder) as guest:
            await guest.take(started.nics[0])
            assert await guest.lease() == "10.199.9.77"
            assert await guest.reaches("10.199.9.1")
            await guest.run("ip", "addr", "add", "10.199.9.99/24", "dev", "eth0")
            await guest.run("ip", "addr", "del", "10.199.9.77/24", "dev", "eth0")
            await guest.run("ip", "addr", "replace", "10.199.9.99/24", "dev", "eth0")
            assert not await guest.reaches("10.199.9.1")
            await guest.run("ip", "addr", "flush", "dev", "eth0")
            await guest.run("ip", "addr", "add", "10.199.9.77/24", "dev", "eth0")
            assert await guest.reaches("10.199.9.1")
            await guest.run("ip", "link", "set", "eth0", "address", "00:16:3e:de:ad:00")
            assert not await guest.reaches("10.199.9.1")
        await nic.stop(seat(**options))
        assert "table bridge" not in (await run("nft", "list", "tables")).stdout
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_no_tag_carries_a_packet_past_the_filter() -> None:
    """The host takes what is tagged with VLAN 0, once or twice, for untagged."""

    async def scenario(_: Runtime, folder: Path) -> None:
        for words in (
            "link add br0 type bridge", "link set br0 up", "addr add 10.0.0.1/24 dev br0",
            "link add port type veth peer name inner", "link set port master br0 up", "link set inner up",
        ):  # fmt: skip
            await run("ip", *words.split())
        with socket(AF_PACKET, SOCK_RAW) as out, socket(AF_INET, SOCK_DGRAM) as host:
            out.bind(("inner", 0))
            hwaddr = out.getsockname()[4]
            target = bytes.fromhex(Path("/sys/class/net/br0/address").read_text().replace(":", ""))
            host.bind(("10.0.0.1", 999))
            host.setblocking(False)

            async def heard(tags: int, *, within: float) -> bool:
                frame = target + hwaddr + b"\x81\x00\x00\x00" * tags + b"\x08\x00" + datagram()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(within):
                        while True:
                            out.send(frame)
                            if await drained(host):
                                return True
                return False

            for tags in range(3):
                assert await heard(tags, within=20)
            mac = hwaddr.hex(":")
            for tags, own in ((0, "10.0.0.7"), (1, "10.0.0.7"), (2, "10.0.0.7"), (0, "none"), (1, "none")):
                passes = tags < 2 and own != "none"
                await nftables.apply(nftables.filter_of("x", "port", mac, ipv4=[own]))
                while await drained(host):
                    pass
                assert await heard(tags, within=20 if passes else 0.3) is passes

    in_namespaces(scenario)


async def drained(host: socket) -> bool:
    """Whether something was left to be read."""
    await asyncio.sleep(0.05)
    try:
        host.recv(100)
    except BlockingIOError:
        return False
    return True


def datagram() -> bytes:
    """A packet from 10.0.0.7 to the host's port 999."""
    addresses = bytes((10, 0, 0, 7, 10, 0, 0, 1))
    bare = struct.pack("!BBHHHBBH8s", 0x45, 0, 28, 1, 0, 64, 17, 0, addresses)
    total = sum(struct.unpack("!10H", bare))
    checksum = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    return bare[:10] + struct.pack("!H", checksum) + bare[12:] + struct.pack("!HHHH", 9, 999, 8, 0)


def test_isolated_clients_reach_the_bridge_but_not_each_other() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        alone = {"security.port_isolation": "true"}
        async with client(folder) as one, client(folder) as two:
            for guest, name in ((one, "c1"), (two, "c2")):
                await guest.take((await nic.start(seat(name, **alone))).nics[0])
            await one.lease()
            other = await two.lease()
            assert await one.reaches("10.199.9.1")
            assert not await one.reaches(other)
        for name in ("c1", "c2"):
            await nic.stop(seat(name))
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_a_limited_nic_is_slowed_both_ways_and_freed_again() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        limits = {"limits.ingress": "8Mbit", "limits.egress": "16Mbit"}
        started = await nic.start(replace(seat(**limits), cold=True))
        (made,) = started.nics
        assert made.kind == "phys"  # LXC could not set them
        assert "rate 8Mbit" in (await run("tc", "qdisc", "show", "dev", made.host_name)).stdout
        assert "limit rate over 2" in (await run("nft", "list", "ruleset")).stdout
        async with client(folder) as guest:
            await guest.take(made)
            await guest.lease()
            assert await exchanged(guest) > 1.5
        await nic.stop(replace(seat(**limits), volatile=started.volatile))
        assert "netdev" not in (await run("nft", "list", "tables")).stdout
        (made,) = (await nic.start(seat())).nics
        assert "rate" not in (await run("tc", "qdisc", "show", "dev", made.host_name)).stdout
        async with client(folder) as guest:
            await guest.take(made)
            await guest.lease()
            await exchanged(guest)
        await nic.stop(seat())
        await own.remove(NETWORK)

    in_namespaces(scenario)


async def exchanged(guest: Client) -> float:
    """Seconds in which a client sends 2 MB to the bridge and gets them back."""
    size = 2_000_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(size))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "10.199.9.1", 9)
    code = (
        "import socket; s = socket.create_connection(('10.199.9.1', 9))\n"
        f"s.sendall(bytes({size})); left = {size}\n"
        "while left: left -= len(s.recv(65536))"
    )
    start = time.monotonic()
    await guest.run("python3", "-I", "-c", code, timeout=60)
    server.close()
    return time.monotonic() - start


def test_a_nic_is_started_twice_and_stopped_without_a_memory() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        own = driver(folder)
        nic = NicBridged(own)
        with pytest.raises(Unavailable, match=NETWORK.name):
            await nic.start(seat())
        await own.ensure(NETWORK)
        first = await nic.start(seat(mtu="1400", **{"ipv4.routes": "10.7.0.0/24"}))
        again = await nic.start(replace(seat(mtu="1400"), volatile=first.volatile))
        assert first.nics == again.nics
        assert first.nics[0].mtu == 1400
        assert "10.7.0.0/24" in (await run("ip", "route")).stdout
        await driver(folder).ensure(NETWORK)  # as a daemon that starts again does
        assert "10.7.0.0/24" in (await run("ip", "route")).stdout
        await nic.stop(seat(**{"ipv4.routes": "10.7.0.0/24"}))
        await nic.stop(seat())
        assert "10.7.0.0/24" not in (await run("ip", "route")).stdout
        assert await links("veth") == set()
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_an_answer_that_came_in_time_is_heard_though_nobody_looked_until_later() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        for words in (
            "link add up0 type veth peer name far0", "addr add 10.66.0.1/24 dev far0",
            "addr add fd66::1/64 dev far0 nodad", "link set up0 up", "link set far0 up",
        ):  # fmt: skip
            await run("ip", *words.split())
        for address in ("10.66.0.1", "fd66::1"):
            late = probe.ANSWERED_WITHIN + 0.1
            asyncio.get_running_loop().call_soon(time.sleep, late)  # right after the first question
            assert await probe.first_in_use("up0", ["10.66.0.2", "fd66::2", address]) == address
        assert await probe.first_in_use("up0", ["10.66.0.2", "fd66::2"]) == ""

    in_namespaces(scenario)


@pytest.mark.parametrize("cold", [True, False])
def test_a_container_has_its_nic_and_leaves_nothing(cold: bool) -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        started = await nic.start(replace(seat(), cold=cold))
        (made,) = started.nics
        assert made.kind == ("veth" if cold else "phys")
        await runtime.start_container(spec(folder, nics=(inside(made),)))
        shown = await sh(runtime, "c1", "ip link show eth0")
        assert made.hwaddr in shown
        assert "mtu 1500" in shown
        assert await ports(own) == (made.host_name,)
        await runtime.kill_container("c1")
        await nic.stop(replace(seat(), volatile=started.volatile))
        assert await links("veth") == set()
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_a_nic_that_came_with_the_start_can_be_unplugged() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        own = driver(folder)
        await own.ensure(NETWORK)
        nic = NicBridged(own)
        first = await nic.start(replace(seat(), cold=True))
        second = await nic.start(replace(seat("c2"), cold=True))
        for name, started in (("c1", first), ("c2", second)):
            await runtime.start_container(spec(folder, name, nics=(inside(started.nics[0]),)))
        await nic.stop(replace(seat(), volatile=first.volatile))
        assert "eth0" not in await sh(runtime, "c1", "ip link")
        assert "eth0" in await sh(runtime, "c2", "ip link")
        for name in ("c1", "c2"):
            await runtime.kill_container(name)
        await own.remove(NETWORK)

    in_namespaces(scenario)


def test_an_infiniband_interface_goes_with_its_files() -> None:
    async def scenario(_: Runtime, folder: Path) -> None:
        await run("ip", "link", "add", "ib0", "type", "veth", "peer", "name", "other")
        driver_ = Infiniband(card(folder))
        options = {"type": "infiniband", "nictype": "physical", "parent": "ib0", "mtu": "1400"}
        where = Seat(instance="default/c1", name="ib", options=options)
        before = (await run("ip", "-brief", "link", "show", "ib0")).stdout
        started = await driver_.start(where)
        assert [nic.link for nic in started.nics] == ["ib0"]
        assert [node.path.rpartition("/")[2] for node in started.nodes] == ["issm0", "umad0", "uverbs0"]
        assert "mtu 1400" in (await run("ip", "link", "show", "ib0")).stdout
        given = replace(where, volatile=started.volatile | {"name": "eth1"})
        taken = await driver_.detach(given)
        assert (taken.nics[0].name, taken.nics[0].link, len(taken.nodes)) == ("eth1", "ib0", 3)
        await driver_.stop(given)
        assert "mtu 1500" in (await run("ip", "link", "show", "ib0")).stdout
        assert (await run("ip", "-brief", "link", "show", "ib0")).stdout.split()[2] == before.split()[2]

    in_namespaces(scenario)


def inside(nic: Nic) -> SpecNic:
    return SpecNic("eth0", nic.link, nic.kind, nic.host_name, nic.hwaddr, nic.mtu)
