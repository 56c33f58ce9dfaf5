import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.errors import Conflict
from lxdpy.host.network.driver import Host
from lxdpy.host.network.driver import Network as HostNetwork
from lxdpy.host.network.fake import FakeBridge
from lxdpy.host.network.registry import Networks, fake_networks
from lxdpy.resources.cluster.model import MemberConfigKey
from lxdpy.resources.networks.actions import Bridges
from lxdpy.resources.networks.model import NETWORKS, Network, NetworkMember
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon


class SlowBridge(FakeBridge):
    """Takes its time: until `go` is set. No two networks of a host have the same address."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def ensure(self, network: HostNetwork, hosts: Sequence[Host] | None = None) -> None:
        self.begun.set()
        await self.go.wait()
        others = (one for name, one in self.networks.items() if name != network.name)
        own = network.config.get("ipv4.address")
        if own and any(one.config.get("ipv4.address") == own for one in others):
            raise Conflict("The address is in use")
        await super().ensure(network, hosts)

    async def remove(self, network: HostNetwork) -> None:
        self.begun.set()
        await self.go.wait()
        await super().remove(network)

    async def hold(self, working: "asyncio.Task[None]") -> None:
        """Until that has begun, and then waits for `go`."""
        await asyncio.wait([working, waiting := asyncio.create_task(self.begun.wait())],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        waiting.cancel()
        assert not working.done()


def bridges(root: Path, store: LocalStore, driver: FakeBridge | None = None) -> Bridges:
    made = Bridges()
    networks = Networks([driver]) if driver else fake_networks()
    made.daemon = local_daemon(root, store, networks=networks, bridges=made)
    return made


def working(own: Bridges, driver: SlowBridge, key: str) -> "asyncio.Task[None]":
    """`ensure`, which will wait for `go`."""
    driver.begun.clear()
    driver.go.clear()
    return asyncio.create_task(own.ensure(key))


def created(store: LocalStore, name: str) -> str:
    """A network that is to be on this member; its key."""
    row = Network("default", name, status="Created", members={MEMBER_ID: NetworkMember(status="Created")})
    store.put(NETWORKS, row.key, row)
    return row.key


def test_what_was_deleted_while_the_daemon_was_down_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        before = bridges(tmp_path, store)
        for name in ("br0", "br1"):
            await before.ensure(created(store, name))
        store.put(NETWORKS, "default/br0", None)
        own = Bridges()
        own.daemon = local_daemon(tmp_path, store, networks=before.daemon.networks)
        driver = own.daemon.networks.driver_for("bridge")
        own.daemon.current = False
        await own.ensure("default/br0")
        assert driver.made() == ("br0", "br1"), "an old state may not know it yet"
        own.daemon.current = True
        assert [*own.strays()] == ["default/br0"]
        for key in own.strays():
            await own.ensure(key)
        assert (driver.made(), [*own.strays()]) == (("br1",), [])

    asyncio.run(main())


def test_a_network_whose_programs_ended_is_made_again(tmp_path: Path) -> None:
    async def main() -> None:
        own = bridges(tmp_path, store := LocalStore())
        key = created(store, "br0")
        await own.ensure(key)
        assert own.failed() == []
        driver = own.daemon.networks.driver_for("bridge")
        assert isinstance(driver, FakeBridge)
        driver.died.add("br0")
        assert own.failed() == [key]
        await own.ensure(key)
        assert (driver.died, own.failed()) == (set(), [])

    asyncio.run(main())


def test_one_that_is_changed_or_removed_just_now_has_not_failed(tmp_path: Path) -> None:
    """Its server is stopped meanwhile, or runs as the old config said."""

    async def main() -> None:
        own = bridges(tmp_path, store := LocalStore(), driver := SlowBridge())
        key = created(store, "br0")
        await own.ensure(key)
        row = store.state.get(NETWORKS, key)
        changed = Network(row.project, row.name, config={"dns.domain": "a"}, status="Created",
                          members=row.members)  # fmt: skip
        for after in (changed, None):
            store.put(NETWORKS, key, after)
            task = working(own, driver, key)
            await driver.hold(task)
            driver.died.add("br0")
            assert own.failed() == []
            driver.go.set()
            await task
            assert own.failed() == []

    asyncio.run(main())


def test_what_takes_the_name_of_one_that_goes_is_not_removed_with_it(tmp_path: Path) -> None:
    """In another project; the first was deleted while this member was still making it."""

    async def main() -> None:
        own = bridges(tmp_path, store := LocalStore(), driver := SlowBridge())
        key = created(store, "br0")
        task = working(own, driver, key)
        await driver.hold(task)
        store.put(NETWORKS, key, None)
        other = Network("p", "br0", status="Created", members={MEMBER_ID: NetworkMember()})
        store.put(NETWORKS, other.key, other)
        driver.go.set()
        await task
        await own.ensure(other.key)
        await own.ensure(key)
        assert driver.made() == ("br0",)
        store.put(NETWORKS, other.key, None)
        await own.ensure(other.key)
        assert driver.made() == ()

    asyncio.run(main())


def test_an_address_goes_from_a_network_that_was_to_one_that_is(tmp_path: Path) -> None:
    """Also when the turn of the new one comes first."""

    async def main() -> None:
        own = bridges(tmp_path, store := LocalStore(), driver := SlowBridge())

        def wanted(name: str) -> str:
            row = Network("default", name, config={"ipv4.address": "10.0.0.1/24"}, status="Created",
                          members={MEMBER_ID: NetworkMember()})  # fmt: skip
            store.put(NETWORKS, row.key, row)
            return row.key

        await own.ensure(first := wanted("br0"))
        store.put(NETWORKS, first, None)
        await own.ensure(second := wanted("br1"))
        assert driver.made() == ("br1",)
        await own.ensure(first)
        assert driver.made() == ("br1",)
        with pytest.raises(Conflict):
            await own.ensure(third := wanted("br2"))
        store.put(NETWORKS, second, None)
        await own.ensure(third)
        part = store.state.get(NETWORKS, third).members[MEMBER_ID]
        assert (driver.made(), part.status, part.error) == (("br2",), "Created", "")

    asyncio.run(main())


def test_what_became_of_one_is_not_reported_of_another_of_its_name(tmp_path: Path) -> None:
    async def main() -> None:
        own = bridges(tmp_path, store := LocalStore(), driver := SlowBridge())
        first = Network("default", "br0", status="Created", members={MEMBER_ID: NetworkMember()})
        store.put(NETWORKS, key := first.key, first)
        task = working(own, driver, key)
        await driver.hold(task)
        part = NetworkMember({"bridge.external_interfaces": "eth1"})
        store.put(NETWORKS, key, Network("default", "br0", status="Created", members={MEMBER_ID: part}))
        driver.go.set()
        await task
        assert store.state.get(NETWORKS, key).members[MEMBER_ID] == part
        await own.ensure(key)
        assert store.state.get(NETWORKS, key).members[MEMBER_ID].status == "Created"
        assert driver.networks["br0"].config == part.config

    asyncio.run(main())


def test_a_joiner_makes_a_bridge_only_with_its_own_keys(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        row = Network("default", "br0", status="Created", members={"other": NetworkMember()})
        store.put(NETWORKS, row.key, row)
        own = bridges(tmp_path, store)
        await own.ensure(row.key)
        driver = own.daemon.networks.driver_for("bridge")
        assert driver.made() == ()
        keys = [
            MemberConfigKey("network", "br0", "bridge.external_interfaces", "eth1"),
            MemberConfigKey("network", "br0", "ipv4.address", "10.0.0.1/24"),
            MemberConfigKey("network", "br1", "bridge.external_interfaces", "eth2"),
        ]
        await own.introduce(keys)
        await own.ensure(row.key)
        part = store.state.get(NETWORKS, row.key).members[MEMBER_ID]
        assert (part.config, part.status) == ({"bridge.external_interfaces": "eth1"}, "Created")
        assert driver.made() == ("br0",)

    asyncio.run(main())
