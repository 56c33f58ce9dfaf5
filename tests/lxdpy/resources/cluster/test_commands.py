"""Members come and go: rows, tokens, and what only a removed member had."""

import pytest

from cluster.errors import AlreadyExists, Conflict, Error, Forbidden, Invalid, NotFound
from cluster.membership.commands import (
    CreateToken,
    EvacuateMember,
    JoinMember,
    ReadyMember,
    RenameMember,
    ReportInventory,
    RestoreMember,
)
from cluster.membership.model import INVENTORIES, MEMBERS, REMOVED, TOKENS, Inventory, Member, Token
from cluster.membership.tokens import hash_of
from lxdpy.resources.cluster.commands import LeaveMember, RemoveMember
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.images.commands import AddImage, CreateAlias, HoldImage
from lxdpy.resources.images.model import ALIASES, IMAGES, Alias, Image
from lxdpy.resources.instances.commands import CreateInstance
from lxdpy.resources.instances.model import IDMAPS, INSTANCES, Instance
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.networks.commands import SetNetworkMember
from lxdpy.resources.networks.model import NETWORKS, Network, NetworkMember
from lxdpy.resources.server.commands import ConfigureServer
from lxdpy.resources.server.model import SETTINGS
from lxdpy.resources.storage_pools.commands import SetPoolMember
from lxdpy.resources.storage_pools.model import POOLS, Pool, PoolMember
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.cluster.scene import OTHER, clustered

THIRD = "333333333333"


def token(name: str, secret: str = "s", **fields: float) -> CreateToken:
    return CreateToken(Token(secret, "member", name, hash_of(secret), 0.0, **fields))  # type: ignore[arg-type]


def joiner(name: str, id: str = THIRD, **fields: str) -> Member:
    made = {"address": f"10.0.0.{name[1:]}:8443", "certificate": f"PEM of {name}", "fingerprint": name}
    return Member(id, name, **(made | fields))  # type: ignore[arg-type]


def joined(store: LocalStore, name: str = "n3", secret: str = "s", **fields: str) -> Member:
    new = joiner(name, **fields)
    return store.run(JoinMember(hash_of(secret), new)).get(MEMBERS, new.id)


def refused(store: LocalStore, kind: type[Error], said: str, *commands: object) -> None:
    """Each of them is, and changes nothing."""
    for command in commands:
        before = store.state.tables
        with pytest.raises(kind, match=said):
            store.run(command)  # type: ignore[arg-type]
        assert store.state.tables == before


def test_a_token_lets_one_member_in_which_is_then_ready() -> None:
    store = clustered()
    store.run(token("n3"))
    assert joined(store).status == "joining"
    assert not store.state.rows(TOKENS)
    assert store.run(ReadyMember(THIRD)).get(MEMBERS, THIRD).status == "ready"
    store.run(LeaveMember(THIRD))
    assert store.run(ReadyMember(THIRD)).get(MEMBERS, THIRD).status == "leaving"


def test_a_token_is_for_one_name_one_use_and_its_time() -> None:
    store = clustered()
    store.run(token("n3", expires_at=store.now + 60))
    refused(store, Forbidden, "for 'n3', not for 'n4'", JoinMember(hash_of("s"), joiner("n4")))
    refused(store, Forbidden, "No such token", JoinMember(hash_of("x"), joiner("n3")))
    store.now += 61
    refused(store, Forbidden, "has expired", JoinMember(hash_of("s"), joiner("n3")))
    store.now -= 10
    joined(store)
    refused(store, Forbidden, "No such token", JoinMember(hash_of("s"), joiner("n3", "4" * 12)))


def test_no_two_members_have_one_name_address_certificate_or_id() -> None:
    store = clustered()
    refused(store, Conflict, "already has a member with name: n2", token("n2"))
    store.run(token("n3"))
    for field, value in (
        ("address", "10.0.0.2:8443"),
        ("fingerprint", store.state.get(MEMBERS, OTHER).fingerprint),
        ("id", OTHER),
    ):
        refused(store, AlreadyExists, "exists", JoinMember(hash_of("s"), joiner("n3", **{field: value})))
    assert len(store.state.rows(TOKENS)) == 1
    store.run(RenameMember(OTHER, "n3"))
    refused(store, Conflict, "already has a member with name: n3", JoinMember(hash_of("s"), joiner("n3")))
    refused(store, Conflict, "already has a member", RenameMember(MEMBER_ID, "n3"))


def test_a_newer_token_for_a_name_replaces_the_older_one_and_a_failed_joiner() -> None:
    store = clustered()
    store.run(token("n3", "s1"))
    store.run(token("n3", "s2"))
    assert list(store.state.rows(TOKENS)) == ["s2"]
    joined(store, secret="s2")
    store.run(token("n3", "s3"))
    assert store.state.get(MEMBERS, THIRD).status == "leaving"
    assert joined(store, secret="s3", id="4" * 12, fingerprint="new", address="10.0.0.9:8443").name == "n3"


def full() -> LocalStore:
    """n2 has some of everything, and shares some of it with n1."""
    store = clustered()
    store.put(POOLS, "default", Pool("default", "dir", status="Created"))
    store.put(NETWORKS, "default/br0", Network("default", "br0", status="Created"))
    for id in (MEMBER_ID, OTHER):
        store.run(SetPoolMember("default", id, PoolMember(status="Created")))
        store.run(SetNetworkMember("default/br0", id, NetworkMember(status="Created")))
        store.run(ReportInventory(Inventory(id, "x86_64", 4, 1 << 30)))
        store.run(ConfigureServer({}, id, {"core.https_address": "10.0.0.1:8443"}))
        store.run(ReportGpus(id, (GpuRow(f"g-{id}", id, "nvidia", "A100", 1 << 30),)))
    for fingerprint, holders in (("both", (MEMBER_ID, OTHER)), ("own", (OTHER,))):
        store.run(AddImage(Image("default", fingerprint, members=holders)))
        store.run(CreateAlias(Alias("default", f"alias-{fingerprint}", fingerprint)))
    for name, id in (("c1", MEMBER_ID), ("c2", OTHER)):
        row = Instance("default", name, f"uuid-{name}", id)
        store.run(CreateInstance(row, (Grant("gpu", f"g-{id}"),)))
    return store


def test_a_member_with_instances_or_the_only_copy_of_an_image_is_removed_by_force_only() -> None:
    store = full()
    refused(store, Invalid, "Node still has the following instances: c2", LeaveMember(OTHER))
    store.put(INSTANCES, "default/c2", None)
    refused(store, Invalid, "Node still has the following images: own", LeaveMember(OTHER))
    store.run(HoldImage("default/own", MEMBER_ID))
    assert store.run(LeaveMember(OTHER)).get(MEMBERS, OTHER).status == "leaving"


def test_with_a_member_goes_all_that_only_it_had_and_nothing_else() -> None:
    store = full()
    store.run(LeaveMember(OTHER, forced=True))
    state = store.run(RemoveMember(OTHER))
    assert OTHER not in {*state.rows(MEMBERS), *state.rows(INVENTORIES)}
    assert list(state.rows(INSTANCES)) == ["default/c1"]
    assert [slot.instance for slot in state.rows(IDMAPS).values()] == ["default/c1"]
    assert list(state.rows(GPUS)) == [f"g-{MEMBER_ID}"]
    assert [image.members for image in state.rows(IMAGES).values()] == [(MEMBER_ID,)]
    assert [alias.target for alias in state.rows(ALIASES).values()] == ["both"]
    assert list(state.get(POOLS, "default").members) == [MEMBER_ID]
    assert list(state.get(NETWORKS, "default/br0").members) == [MEMBER_ID]
    assert list(state.rows(SETTINGS)) == [f"{MEMBER_ID}/core.https_address"]


def test_what_a_removed_member_still_had_to_say_is_refused() -> None:
    store = full()
    store.run(LeaveMember(OTHER, forced=True))
    store.run(RemoveMember(OTHER))
    refused(
        store, NotFound, "Member not found",
        SetPoolMember("default", OTHER, PoolMember()),
        SetNetworkMember("default/br0", OTHER, NetworkMember()),
        HoldImage("default/both", OTHER), ReportInventory(Inventory(OTHER, "", 1, 1)),
    )  # fmt: skip


def test_a_card_that_a_removed_member_announced_first_is_the_others() -> None:
    store = full()
    card = GpuRow(f"g-{OTHER}", OTHER, "nvidia", "A100", 1 << 30, claimed_by=MEMBER_ID)
    store.put(GPUS, card.uuid, card)
    store.run(LeaveMember(OTHER, forced=True))
    row = store.run(RemoveMember(OTHER)).get(GPUS, card.uuid)
    assert (row.member, row.state) == (MEMBER_ID, "free")


def test_a_member_is_only_removed_when_it_is_leaving_and_never_the_last_one() -> None:
    store = clustered()
    refused(store, Conflict, "Member n2 is not leaving", RemoveMember(OTHER))
    store.run(LeaveMember(OTHER))
    refused(store, Invalid, "Node is the only node in the cluster", LeaveMember(MEMBER_ID, forced=True))
    refused(store, NotFound, "Member not found", LeaveMember(THIRD), RemoveMember(THIRD))


def test_who_was_removed_is_remembered_until_it_joins_again_but_not_too_many() -> None:
    store = clustered()
    for number in range(70):
        store.run(token("n3"))
        joined(store, id=f"{number:012}", certificate=f"PEM {number}")
        store.now += 1
        store.run(LeaveMember(f"{number:012}"))
        store.run(RemoveMember(f"{number:012}"))
    assert sorted(store.state.rows(REMOVED)) == [f"{number:012}" for number in range(6, 70)]
    store.run(token("n3"))
    joined(store, certificate="PEM 50")
    assert f"{50:012}" not in store.state.rows(REMOVED)


def test_evacuation_and_restoration_are_for_members_that_are_ready() -> None:
    store = clustered()
    assert store.run(EvacuateMember(OTHER)).get(MEMBERS, OTHER).status == "evacuated"
    assert store.run(EvacuateMember(OTHER)).get(MEMBERS, OTHER).status == "evacuated"
    assert store.run(RestoreMember(OTHER)).get(MEMBERS, OTHER).status == "ready"
    store.run(LeaveMember(OTHER))
    refused(store, Invalid, "Cannot evacuate or restore", EvacuateMember(OTHER), RestoreMember(OTHER))


def test_a_removal_is_told_once() -> None:
    store = clustered()
    told: list[str] = []
    store.watch(lambda applied: told.extend(event.action for event in all_events(applied.changes)))
    store.run(LeaveMember(OTHER))
    store.run(RemoveMember(OTHER))
    assert told == ["cluster-member-removed"]
