"""What every network driver must do. Used on the fake by tests/, on the real one by integration/."""

from cluster.errors import NotFound
from lxdpy.host.network.driver import Host, Network, NetworkDriver

NETWORK = Network(
    name="lxdpytest0", config={"ipv4.address": "10.199.7.1/24", "ipv6.address": "none", "bridge.mtu": "1400"}
)
C1 = Host(instance="default/c1", device="eth0", hwaddr="00:16:3e:00:00:01", ipv4="10.199.7.77")
C2 = Host(instance="default/c2", device="eth0", hwaddr="00:16:3e:00:00:02", ipv4="10.199.7.78")


async def made_twice_is_made_once(driver: NetworkDriver) -> None:
    await driver.ensure(NETWORK)
    first = await driver.state(NETWORK)
    await driver.ensure(NETWORK)
    again = await driver.state(NETWORK)
    assert first.hwaddr == again.hwaddr
    assert [(one.address, one.netmask) for one in again.addresses if one.family == "inet"] == [
        ("10.199.7.1", "24")
    ]
    assert (again.mtu, again.type, again.state) == (1400, "broadcast", "up")
    assert again.bridge is not None
    assert driver.made() == ("lxdpytest0",)
    assert driver.serves(NETWORK)


async def changed_is_changed(driver: NetworkDriver) -> None:
    await driver.ensure(NETWORK)
    changed = Network(name=NETWORK.name, config={"ipv4.address": "10.199.8.1/25"})
    await driver.ensure(changed)
    state = await driver.state(changed)
    assert [one.address for one in state.addresses if one.family == "inet"] == ["10.199.8.1"]
    assert state.mtu == 1500


async def hosts_are_exactly_those_given(driver: NetworkDriver) -> None:
    await driver.ensure(NETWORK, [C1])
    await driver.ensure(NETWORK)
    await driver.add_host(NETWORK, C2)
    await driver.add_host(NETWORK, C2)
    assert await static(driver) == {"10.199.7.77", "10.199.7.78"}
    await driver.remove_host(NETWORK, C1.instance, C1.device)
    await driver.remove_host(NETWORK, C1.instance, C1.device)
    assert await static(driver) == {"10.199.7.78"}
    await driver.ensure(NETWORK, [C1])
    assert await static(driver) == {"10.199.7.77"}


async def removed_twice_is_gone(driver: NetworkDriver) -> None:
    await driver.ensure(NETWORK, [C1])
    await driver.remove(NETWORK)
    await driver.remove(NETWORK)
    assert driver.made() == ()
    assert not driver.serves(NETWORK)
    try:
        await driver.state(NETWORK)
    except NotFound:
        return
    raise AssertionError("the network has a state after it was removed")


async def static(driver: NetworkDriver) -> set[str]:
    return {lease.address for lease in await driver.leases(NETWORK) if lease.type == "static"}


PROMISES = (
    made_twice_is_made_once,
    changed_is_changed,
    hosts_are_exactly_those_given,
    removed_twice_is_gone,
)
