"""NICs of all types through any member: put in while the instance runs, there from its start, and gone."""

import re
from collections.abc import Iterator

import pytest

from integration.harness import eventually, lxc, running
from integration.instances import busybox, clear, crash, failure, instance, restarted, sh
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
SOON = 15.0  # seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(members=2, gpus=0) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Member]:
    """The member that does not have the running instance c1."""
    one, two = cluster.members
    lxc(two, "launch", "busybox", "c1", "--target", one.name)
    yield two
    clear(two)


@pytest.fixture
def wire(cluster: Cluster) -> Iterator[Member]:
    """The owner, whose host has an interface `up0` that leads to `far0`, with an address."""
    owner = cluster.members[0]
    net(owner, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0")
    net(owner, "ip", "addr", "add", "10.66.0.1/24", "dev", "far0")
    for name in ("up0", "far0"):
        net(owner, "ip", "link", "set", name, "up")
    yield owner
    net(owner, "ip", "link", "del", "far0")


def net(member: Member, *words: str) -> str:
    return run(*member.net.enter(member.name, *words))


def interfaces(member: Member) -> list[str]:
    return sh(member, "c1", "ls /sys/class/net").split()


def reaches(member: Member, address: str) -> bool:
    return "1 packets received" in sh(member, "c1", f"ping -c 1 -W 2 {address}")


def test_macvlan_has_an_address_of_its_own_on_the_parents_wire(other: Member, wire: Member) -> None:
    lxc(
        other,
        "config",
        "device",
        "add",
        "c1",
        "m",
        "nic",
        "nictype=macvlan",
        "parent=up0",
        "name=mac0",
        "mtu=1400",
    )
    for hot in (True, False):
        restarted(other, "c1", unless=hot)
        assert "mac0" in interfaces(other)
        assert sh(other, "c1", "cat /sys/class/net/mac0/mtu").strip() == "1400"
        hwaddr = instance(other, "c1")["config"]["volatile.m.hwaddr"]
        assert sh(other, "c1", "cat /sys/class/net/mac0/address").strip() == hwaddr
        sh(other, "c1", "ip addr add 10.66.0.2/24 dev mac0; ip link set mac0 up")
        eventually(lambda: reaches(other, "10.66.0.1"), within=SOON)
    lxc(other, "config", "device", "remove", "c1", "m")
    assert "mac0" not in interfaces(other)
    assert "macvlan" not in net(wire, "ip", "-d", "link")


def test_a_physical_interface_is_lent_and_comes_back_as_it_was(other: Member, wire: Member) -> None:
    before = net(wire, "cat", "/sys/class/net/up0/address")
    words = ("nictype=physical", "parent=up0", "name=phys0", "hwaddr=00:16:3e:11:22:33", "mtu=1300")
    for hot in (True, False):
        lxc(other, "config", "device", "add", "c1", "p", "nic", *words)
        restarted(other, "c1", unless=hot)
        assert sh(other, "c1", "cat /sys/class/net/phys0/address /sys/class/net/phys0/mtu").split() == [
            "00:16:3e:11:22:33",
            "1300",
        ]
        assert "up0" not in net(wire, "ls", "/sys/class/net").split()
        lxc(other, "config", "device", "remove", "c1", "p")
        assert "phys0" not in interfaces(other)
        assert net(wire, "cat", "/sys/class/net/up0/address") == before
        assert net(wire, "cat", "/sys/class/net/up0/mtu").strip() == "1500"
    lxc(other, "config", "device", "add", "c1", "p", "nic", *words)
    lxc(other, "stop", "--force", "c1")
    assert net(wire, "cat", "/sys/class/net/up0/address") == before


def test_a_daemon_that_dies_while_it_lends_finds_the_interface_again(
    cluster: Cluster, other: Member, wire: Member
) -> None:
    before = net(wire, "cat", "/sys/class/net/up0/address")
    words = ("nictype=physical", "parent=up0", "hwaddr=00:16:3e:11:22:33")
    crash(wire, "device.plugged", "config", "device", "add", "c1", "p", "nic", *words, at=other)
    eventually(lambda: "volatile.p.host_name" in instance(other, "c1")["config"], within=30)
    assert interfaces(other) == ["eth0", "eth1", "lo"]
    lxc(other, "config", "device", "remove", "c1", "p")
    assert interfaces(other) == ["eth0", "lo"]
    assert net(wire, "cat", "/sys/class/net/up0/address") == before


def test_routed_addresses_are_the_hosts_to_answer_for(other: Member, wire: Member) -> None:
    net(wire, "ip", "link", "set", "up0", "mtu", "1450")
    lxc(other, "config", "device", "add", "c1", "r", "nic", "nictype=routed", "parent=up0", "name=r0",
        "ipv4.address=10.66.0.9", "ipv6.address=fd66::9", "ipv4.host_table=77")  # fmt: skip
    for hot in (True, False):
        restarted(other, "c1", unless=hot)
        assert "10.66.0.9/32" in sh(other, "c1", "ip addr show r0")
        assert "mtu 1450" in sh(other, "c1", "ip link show r0")
        assert "169.254.0.1 dev r0" in sh(other, "c1", "ip route")
        assert reaches(other, "169.254.0.1")
        assert "10.66.0.9" in net(wire, "ip", "neigh", "show", "proxy", "dev", "up0")
        assert "10.66.0.9" in net(wire, "ip", "route", "show", "table", "77")
        assert "fd66::9" in net(wire, "ip", "-6", "route")
    lxc(other, "config", "device", "remove", "c1", "r")
    assert "r0" not in interfaces(other)
    assert net(wire, "ip", "neigh", "show", "proxy", "dev", "up0") == ""


def test_an_address_that_somebody_has_is_refused_unless_nobody_is_asked(other: Member, wire: Member) -> None:
    net(wire, "ip", "addr", "add", "fd66::1/64", "dev", "far0", "nodad")
    words = ("config", "device", "add", "c1", "r", "nic", "nictype=routed", "parent=up0")
    for address in ("ipv4.address=10.66.0.1", "ipv6.address=fd66::1"):
        said = failure(other, *words, address)
        assert f'IP address "{address.partition("=")[2]}" in use on parent network "up0"' in said
        assert instance(other, "c1")["devices"] == {}
    assert net(wire, "ip", "neigh", "show", "proxy", "dev", "up0") == ""
    lxc(other, *words, "ipv6.address=fd66::1", "ipv6.neighbor_probe=false")


def test_a_nic_that_is_limited_or_filtered_stays_where_it_is(other: Member, wire: Member) -> None:
    """Its address inside is lost when it goes and comes."""

    def rules() -> str:
        return net(wire, "nft", "list", "ruleset")

    lxc(other, "config", "device", "override", "c1", "eth0")
    host_name = instance(other, "c1")["config"]["volatile.eth0.host_name"]
    sh(other, "c1", "ip addr add 10.99.0.1/24 dev eth0")
    change = ("config", "device", "set", "c1", "eth0")
    lxc(other, *change, "limits.ingress=10Mbit", "limits.egress=20Mbit", "security.mac_filtering=true")
    assert "rate 10Mbit" in net(wire, "tc", "qdisc", "show", "dev", host_name)
    assert "limit rate over" in rules()
    assert "ether saddr !=" in rules()
    lxc(other, *change, "ipv4.address=none", "security.ipv4_filtering=true", "ipv4.routes=10.98.0.0/24")
    assert "meta protocol { ip, arp } drop" in rules()
    assert "10.98.0.0/24 dev lxdbr0" in net(wire, "ip", "route")
    lxc(other, *change, "limits.ingress=", "limits.egress=", "security.mac_filtering=", "ipv4.address=",
        "security.ipv4_filtering=", "ipv4.routes=")  # fmt: skip
    assert "rate 10Mbit" not in net(wire, "tc", "qdisc", "show", "dev", host_name)
    assert "lxdpy_nic" not in rules()
    assert "10.98.0.0/24" not in net(wire, "ip", "route")
    assert "10.99.0.1/24" in sh(other, "c1", "ip addr show eth0")
    said = failure(other, *change, "ipv4.address=10.1.1.1")
    assert '"ipv4.address=10.1.1.1" is not in a subnet of network lxdbr0' in said
    assert instance(other, "c1")["config"]["volatile.eth0.host_name"] == host_name


def test_what_an_instance_sends_has_its_priority(other: Member, wire: Member) -> None:
    def rules() -> str:
        return net(wire, "nft", "list", "ruleset")

    def ports() -> set[str]:
        config = instance(other, "c1")["config"]
        return {config[f"volatile.{name}.host_name"] for name in ("eth0", "p")}

    lxc(other, "config", "set", "c1", "limits.network.priority=9")
    lxc(other, "config", "device", "add", "c1", "p", "nic", "nictype=p2p")
    lxc(other, "config", "device", "add", "c1", "m", "nic", "nictype=macvlan", "parent=up0")
    for hot in (True, False):
        restarted(other, "c1", unless=hot)
        found = re.findall(r"iifname { (.*) } meta priority set 0:9", rules())
        assert [{*re.findall(r"\w+", one)} for one in found] == [ports()] * 2
    lxc(other, "config", "set", "c1", "limits.network.priority=3")
    assert "meta priority set 0:3" in rules()
    assert "meta priority set 0:9" not in rules()
    lxc(other, "config", "unset", "c1", "limits.network.priority")
    assert "lxdpy_prio" not in rules()
    lxc(other, "config", "set", "c1", "limits.network.priority=4")
    lxc(other, "stop", "--force", "c1")
    assert "lxdpy_prio" not in rules()


def test_limits_of_a_pair_follow(other: Member, wire: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "p", "nic", "nictype=p2p", "limits.ingress=10Mbit")
    host_name = instance(other, "c1")["config"]["volatile.p.host_name"]
    assert "rate 10Mbit" in net(wire, "tc", "qdisc", "show", "dev", host_name)
    lxc(other, "config", "device", "set", "c1", "p", "limits.ingress=", "ipv4.routes=10.97.0.0/24")
    assert "rate 10Mbit" not in net(wire, "tc", "qdisc", "show", "dev", host_name)
    assert f"10.97.0.0/24 dev {host_name}" in net(wire, "ip", "route")
    lxc(other, "config", "device", "remove", "c1", "p")
