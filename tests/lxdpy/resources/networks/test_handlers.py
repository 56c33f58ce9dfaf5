import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import Invalid
from lxdpy.host.network.fake import FakeBridge
from lxdpy.host.network.registry import fake_networks
from lxdpy.resources.networks import forwards, unsupported
from lxdpy.resources.networks.actions import Bridges
from lxdpy.resources.networks.commands import SetNetworkMember
from lxdpy.resources.networks.handlers import routes
from lxdpy.resources.networks.model import NETWORKS, Forward, Network, NetworkMember
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving
from tests.lxdpy.resources.cluster.scene import OTHER, clustered

LIST = "/1.0/networks"
CONFIG = {"ipv4.address": "10.9.0.1/24", "ipv6.address": "none"}


class Alive:
    def online(self, member: str) -> bool:
        return True


class Peers:
    """Asks the other member, which has one lease and the same gateway."""

    async def ask(self, member: str, method: str, path: str, timeout: float = 0) -> list[dict[str, Any]]:
        gateway = {"hostname": "br0.gw", "hwaddr": "", "address": "10.9.0.1", "type": "gateway"}
        lease = {"hostname": "c2", "hwaddr": "00:16:3e:00:00:02", "address": "10.9.0.7", "type": "dynamic"}
        return [{**gateway, "location": "n2"}, {**lease, "location": "n2"}]


def with_client(root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]]) -> None:
    async def main() -> None:
        bridges = Bridges()
        bridges.daemon = local_daemon(
            root, store, networks=fake_networks(), bridges=bridges, beat=Alive(), forwarder=Peers()
        )
        async with serving(bridges.daemon, routes, forwards.routes, *unsupported.ROUTES) as client:
            await check(client)

    asyncio.run(main())


def test_a_network_is_defined_on_each_member_and_then_created(tmp_path: Path) -> None:
    store = clustered()

    async def check(client: Local) -> None:
        body = {"name": "br0", "config": CONFIG}
        answer = await client.ask("POST", LIST, body)
        said = "Network not pending on any node (use --target <node> first)"
        assert (answer["error_code"], answer["error"]) == (400, said)
        await client.ask("POST", f"{LIST}?target=n1", {"name": "br0"})
        answer = await client.ask("POST", f"{LIST}?target=n1", {"name": "br0"})
        said = 'The network is already defined on member "n1"'
        assert (answer["error_code"], answer["error"]) == (409, said)
        answer = await client.ask("POST", LIST, body)
        assert (answer["error_code"], answer["error"]) == (400, "Network not defined on nodes: n2")
        assert store.state.get(NETWORKS, "default/br0").status == "Pending"

    with_client(tmp_path, store, check)


def test_keys_of_one_member_are_changed_there(tmp_path: Path) -> None:
    """By who names the member, or of a server that is not clustered; what else is changed leaves them."""
    key = "bridge.external_interfaces"

    def part(eth: str) -> NetworkMember:
        return NetworkMember({key: eth}, status="Created", forwards={"10.0.0.1": Forward()})

    alone, two = LocalStore(), clustered()
    alone.run(CreateDefaults())
    for store, members in ((alone, [MEMBER_ID]), (two, [MEMBER_ID, OTHER])):
        parts = {member: part("eth1") for member in members}
        store.put(NETWORKS, "default/br0", Network("default", "br0", "bridge", "", CONFIG, "Created", parts))

    async def check(client: Local) -> None:
        state, path = client.api.daemon.store.state, f"{LIST}/br0"
        several = OTHER in state.get(NETWORKS, "default/br0").members
        if several:
            refused = (400, f'Config key "{key}" is cluster member specific')
            answer = await client.ask("PATCH", path, {"config": {key: "eth2"}})
            assert (answer["error_code"], answer["error"]) == refused
        where = f"{path}?target=n1" if several else path
        await client.ask("PATCH", where, {"config": {key: "eth2"}})
        await client.ask("PATCH", path, {"config": {"user.a": "b"}})
        shown = (await client.ask("GET", where))["metadata"]["config"]
        assert shown == {**CONFIG, "user.a": "b", key: "eth2"}
        await client.ask("PUT", where, {"config": {**shown, key: ""}})
        assert (await client.ask("GET", where))["metadata"]["config"] == {**CONFIG, "user.a": "b"}
        row = client.api.daemon.store.state.get(NETWORKS, "default/br0")
        assert row.members[MEMBER_ID] == msgspec.structs.replace(part("eth1"), config={})
        assert row.members.get(OTHER, part("eth1")) == part("eth1")

    for store in (alone, two):
        (tmp_path / str(id(store))).mkdir()
        with_client(tmp_path / str(id(store)), store, check)


def test_what_the_programs_of_a_network_do_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: FakeBridge, config: dict[str, str]) -> None:
        if config.get("raw.dnsmasq") == "nonsense":
            raise Invalid("dnsmasq: bad option")

    monkeypatch.setattr(FakeBridge, "try_out", refuse)
    store = LocalStore()
    store.run(CreateDefaults())
    store.put(NETWORKS, "default/br0", Network("default", "br0", config=CONFIG, status="Created"))

    async def check(client: Local) -> None:
        body = {"name": "br1", "config": {**CONFIG, "raw.dnsmasq": "nonsense"}}
        for method, path in (("POST", LIST), ("PUT", f"{LIST}/br0")):
            answer = await client.ask(method, path, body)
            assert (answer["error_code"], answer["error"]) == (400, "dnsmasq: bad option")

    with_client(tmp_path, store, check)


def test_a_key_of_a_network_that_is_not_known_cannot_be_unset(tmp_path: Path) -> None:
    store = clustered()
    store.put(NETWORKS, "default/br0", Network("default", "br0", config=CONFIG, status="Created"))

    async def check(client: Local) -> None:
        answer = await client.ask("PATCH", f"{LIST}/br0", {"config": {"colour": ""}})
        assert (answer["error_code"], answer["error"]) == (400, "Unknown configuration key: colour")

    with_client(tmp_path, store, check)


@pytest.mark.parametrize("name", ["lo", "br0"])
def test_no_network_takes_the_name_of_an_interface(tmp_path: Path, name: str) -> None:
    store = LocalStore()
    store.run(CreateDefaults())
    store.put(NETWORKS, "other/br0", Network("other", "br0", config=CONFIG, status="Created"))
    store.put(NETWORKS, "default/br1", Network("default", "br1", config=CONFIG, status="Created"))
    before = store.state.tables

    async def check(client: Local) -> None:
        for path in (LIST, f"{LIST}/br1"):
            answer = await client.ask("POST", path, {"name": name, "config": CONFIG})
            said = f'Network interface "{name}" already exists'
            assert (answer["error_code"], answer["error"]) == (409, said)

    with_client(tmp_path, store, check)
    assert store.state.tables == before


def test_what_only_other_types_of_network_have_is_listed_empty_and_refused(tmp_path: Path) -> None:
    store = clustered()
    store.put(NETWORKS, "default/br0", Network("default", "br0", config=CONFIG, status="Created"))

    async def check(client: Local) -> None:
        for path in ("/1.0/network-acls", "/1.0/network-zones", f"{LIST}/br0/peers"):
            assert (await client.ask("GET", path))["metadata"] == []
            answer = await client.ask("POST", path, {"name": "x"})
            assert answer["error_code"] == 501
            assert "not supported" in answer["error"]
        assert (await client.ask("GET", f"{LIST}/br9/peers"))["error_code"] == 404

    with_client(tmp_path, store, check)


def test_forwards_are_made_changed_and_deleted_where_they_are(tmp_path: Path) -> None:
    store = clustered()
    elsewhere = NetworkMember(status="Created", forwards={"192.0.2.8": Forward("there")})
    parts = {MEMBER_ID: NetworkMember(status="Created"), OTHER: elsewhere}
    row = Network("default", "br0", config=CONFIG, status="Created", members=parts)
    store.put(NETWORKS, row.key, row)
    here, url = f"{LIST}/br0/forwards", f"{LIST}/br0/forwards/192.0.2.7"
    ports = [{"protocol": "tcp", "listen_port": "80", "target_address": "10.9.0.5"}]

    async def check(client: Local) -> None:
        body = {"listen_address": "192.0.2.7", "description": "d", "ports": ports}
        assert (await client.ask("POST", here, body))["error_code"] == 0
        answer = await client.ask("POST", here, body)
        said = "A forward for that listen address already exists"
        assert (answer["error_code"], answer["error"]) == (409, said)
        assert (await client.ask("POST", here, {**body, "listen_address": "x"}))["error_code"] == 400
        assert (await client.ask("GET", here))["metadata"] == [url, f"{here}/192.0.2.8"]
        shown = (await client.ask("GET", f"{here}?recursion=1"))["metadata"]
        assert [(one["listen_address"], one["location"]) for one in shown] == [
            ("192.0.2.7", "n1"), ("192.0.2.8", "n2")
        ]  # fmt: skip
        etag = (await client.reply("GET", url)).headers["ETag"]
        for method, expected in (("PATCH", 200), ("PUT", 412)):
            changed = b'{"config": {"user.a": "1"}}'
            assert (await client.reply(method, url, changed, **{"If-Match": etag})).status == expected
        shown = (await client.ask("GET", url))["metadata"]
        assert (shown["config"], shown["description"], len(shown["ports"])) == ({"user.a": "1"}, "d", 1)
        await client.ask("PUT", url, {})
        assert (await client.ask("GET", url))["metadata"]["ports"] == []
        assert (await client.ask("DELETE", url))["error_code"] == 0
        assert (await client.ask("GET", url))["error_code"] == 404
        assert (await client.ask("GET", f"{here}/192.0.2.8?target=n1"))["error_code"] == 404

    with_client(tmp_path, store, check)


def test_one_of_several_members_has_to_be_named(tmp_path: Path) -> None:
    store = clustered()
    part = NetworkMember(status="Created", forwards={"192.0.2.8": Forward()})
    row = Network("default", "br0", config=CONFIG, status="Created", members={MEMBER_ID: part, OTHER: part})
    store.put(NETWORKS, row.key, row)

    async def check(client: Local) -> None:
        url = f"{LIST}/br0/forwards/192.0.2.8"
        answer = await client.ask("GET", url)
        assert (answer["error_code"], "Please target a specific member" in answer["error"]) == (400, True)
        assert (await client.ask("GET", f"{url}?target=n2"))["metadata"]["location"] == "n2"

    with_client(tmp_path, store, check)


def test_a_members_report_leaves_its_forwards(tmp_path: Path) -> None:
    store = clustered()
    part = NetworkMember(forwards={"192.0.2.8": Forward()})
    row = Network("default", "br0", config=CONFIG, status="Created", members={MEMBER_ID: part})
    store.put(NETWORKS, row.key, row)
    store.run(SetNetworkMember(row.key, MEMBER_ID, NetworkMember(status="Created")))
    assert store.state.get(NETWORKS, row.key).members[MEMBER_ID] == msgspec.structs.replace(
        part, status="Created"
    )


def test_leases_of_all_members_are_listed_with_one_gateway(tmp_path: Path) -> None:
    store = clustered()
    parts = {member: NetworkMember(status="Created") for member in (MEMBER_ID, OTHER)}
    row = Network("default", "br0", config=CONFIG, status="Created", members=parts)
    store.put(NETWORKS, row.key, row)

    async def check(client: Local) -> None:
        leases = (await client.ask("GET", f"{LIST}/br0/leases"))["metadata"]
        assert [(one["hostname"], one["location"]) for one in leases] == [("br0.gw", ""), ("c2", "n2")]

    with_client(tmp_path, store, check)
