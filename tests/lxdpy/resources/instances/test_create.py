"""What is checked and recorded of a new instance, before anything is made."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cluster.errors import AlreadyExists, Conflict, Error, Exhausted, Invalid, NotFound, Unsupported
from cluster.membership.commands import EnableCluster
from cluster.membership.model import GROUPS, MEMBERS, Group, Member
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.images.model import ALIASES, IMAGES, Alias, Asked, Image, Remote
from lxdpy.resources.instances import create
from lxdpy.resources.instances.commands import CreateInstance, TellImage
from lxdpy.resources.instances.model import INSTANCES, Instance, InstanceSource, InstancesPost, Source
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu
from tests.lxdpy.resources.instances.scene import ROOT, house, instance, ready_store

NOTHING = InstanceSource(type="none")
FINGERPRINT = "f" * 64


def record(
    root: Path, store: LocalStore, *, target: str = "", dead: tuple[str, ...] = (), **body: Any
) -> Instance:
    async def main() -> Instance:
        async with asyncio.TaskGroup() as tasks:
            daemon = house(root, store, tasks)
            daemon.beat = SimpleNamespace(online=lambda member: member not in dead)  # type: ignore[assignment]
            asked: dict[str, Any] = {"name": "c1", "source": NOTHING, "devices": {"root": ROOT}, **body}
            try:
                return await create.record(daemon, InstancesPost(**asked), "default", target)
            except Error as refused:
                failure = refused
        raise failure

    return asyncio.run(main())


def clustered() -> LocalStore:
    """n1 and n2, the second of group `rack`."""
    store = ready_store()
    store.run(EnableCluster(MEMBER_ID, "n1", "n1:1", "", ""))
    store.put(GROUPS, "rack", Group("rack"))
    store.put(MEMBERS, OTHER, Member(OTHER, "n2", "n2:1", status="ready", groups=("rack",)))
    return store


def with_image(store: LocalStore, **known: Any) -> None:
    image = Image("default", FINGERPRINT, **known)
    store.put(IMAGES, image.key, image)
    alias = Alias("default", "debian", FINGERPRINT)
    store.put(ALIASES, alias.key, alias)


def test_the_row_is_the_reservation_and_carries_the_daemons_notes(tmp_path: Path) -> None:
    store = ready_store()
    row = record(tmp_path, store, config={"user.x": "1", "user.y": "", "volatile.base_image": "forged"})
    assert store.state.get(INSTANCES, "default/c1") == row
    assert (row.status, row.location, row.pool, row.profiles) == (
        "Creating",
        MEMBER_ID,
        "default",
        ("default",),
    )
    assert row.operation.endswith(MEMBER_ID)
    notes = {key for key in row.config if key.startswith("volatile.")}
    assert notes == {"volatile.uuid", "volatile.cloud-init.instance-id"}
    assert (row.config["volatile.uuid"], row.config["user.x"], "user.y" in row.config) == (
        row.uuid,
        "1",
        False,
    )


def test_nics_have_their_addresses_before_they_are_first_started(tmp_path: Path) -> None:
    nic = {"type": "nic", "nictype": "p2p"}
    devices = {
        "root": ROOT, "a": nic, "b": nic, "own": nic | {"hwaddr": "00:16:3e:00:00:01"},
        "host": {"type": "nic", "nictype": "physical", "parent": "eth9"},
    }  # fmt: skip
    row = record(tmp_path, ready_store(), devices=devices)
    drawn = {key: value for key, value in row.config.items() if key.endswith(".hwaddr")}
    assert drawn.keys() == {"volatile.a.hwaddr", "volatile.b.hwaddr"}
    assert len(set(drawn.values())) == 2


def test_an_image_says_what_it_is_made_for_and_what_it_is(tmp_path: Path) -> None:
    store = ready_store()
    with_image(store, architecture="aarch64", properties={"os": "Debian"}, profiles=())
    store.put(MEMBERS, MEMBER_ID, Member(MEMBER_ID, "none", status="ready", architecture="x86_64"))
    source = InstanceSource(type="image", alias="debian")
    with pytest.raises(Exhausted, match="x86_64, not aarch64"):
        record(tmp_path, store, source=source)
    store.put(MEMBERS, MEMBER_ID, Member(MEMBER_ID, "none", status="ready", architecture="aarch64"))
    row = record(tmp_path, store, source=source)
    assert (row.architecture, row.profiles, row.source.fingerprint) == ("aarch64", (), FINGERPRINT)
    assert (row.config["image.os"], row.config["volatile.base_image"]) == ("Debian", FINGERPRINT)
    with pytest.raises(NotFound, match="fedora"):
        record(tmp_path, store, name="c2", source=InstanceSource(type="image", alias="fedora"))


def test_it_goes_where_the_fewest_are_or_where_it_is_told_to(tmp_path: Path) -> None:
    store = clustered()
    places = [record(tmp_path, store, name=f"c{number}").location for number in range(4)]
    assert sorted(places) == sorted([MEMBER_ID, OTHER] * 2)
    for number in range(3):
        assert record(tmp_path, store, name=f"t{number}", target="n1").location == MEMBER_ID
        assert record(tmp_path, store, name=f"g{number}", target="@rack").location == OTHER
    assert record(tmp_path, store, name="alive", dead=(OTHER,)).location == MEMBER_ID
    with pytest.raises(Exhausted, match=r"n2: offline"):
        record(tmp_path, store, name="late", target="n2", dead=(OTHER,))
    for target in ("n9", "@nowhere"):
        with pytest.raises(NotFound):
            record(tmp_path, store, name="late", target=target)
    with pytest.raises(Invalid, match="only allowed when clustered"):
        record(tmp_path, ready_store(), target="n1")


class Racing(LocalStore):
    """Where somebody does something each time before a proposal arrives."""

    def __init__(self, first: Callable[["Racing", CreateInstance], None]) -> None:
        super().__init__()
        self._first = first

    async def propose(self, command: Command, **how: Any) -> State:
        assert isinstance(command, CreateInstance)
        self._first(self, command)
        return await super().propose(command, **how)


def racing(first: Callable[[Racing, CreateInstance], None], cards: int) -> Racing:
    store = Racing(first)
    ready = ready_store()
    store.machine.state = ready.machine.state
    add(store, *(gpu(f"GPU-{number}", MEMBER_ID, f"0000:{number:02x}:00.0") for number in range(cards)))
    return store


def snatch(store: Racing, command: CreateInstance) -> None:
    """Take the GPU that was chosen, once for each of the first three."""
    [grant] = command.grants
    number = len(store.state.rows(INSTANCES))
    if number < 3:
        rival = Instance("default", f"rival{number}", f"r{number}", MEMBER_ID)
        store.run(CreateInstance(rival, (Grant("gpu", grant.uuid),)))


def test_who_loses_a_race_for_a_gpu_takes_another(tmp_path: Path) -> None:
    store = racing(snatch, cards=4)
    row = record(tmp_path, store, config={"limits.gpu": "1"})
    assert row.config["volatile.gpu.gpu.uuids"] == "GPU-3"
    assert [one.holders[0].instance for one in store.state.rows(GPUS).values()] == [
        "default/rival0",
        "default/rival1",
        "default/rival2",
        "default/c1",
    ]


def test_who_loses_the_race_for_the_last_gpu_leaves_nothing(tmp_path: Path) -> None:
    store = racing(snatch, cards=3)
    with pytest.raises(Exhausted, match="none: 0 of 3 GPUs free"):
        record(tmp_path, store, config={"limits.gpu": "1"})
    assert "default/c1" not in store.state.rows(INSTANCES)


def test_of_two_with_one_name_the_second_is_refused(tmp_path: Path) -> None:
    def take_the_name(store: Racing, command: CreateInstance) -> None:
        instance(store, "c1")

    store = racing(take_the_name, 0)
    for _ in ("recorded meanwhile", "there from the beginning"):
        with pytest.raises(AlreadyExists, match='Instance "c1" already exists'):
            record(tmp_path, store)


def test_a_member_that_left_meanwhile_is_not_asked_for_ever(tmp_path: Path) -> None:
    def leave(store: Racing, command: CreateInstance) -> None:
        store.put(MEMBERS, MEMBER_ID, Member(MEMBER_ID, "none", status="evacuated"))

    store = racing(leave, 0)
    with pytest.raises(Exhausted, match="none: evacuated"):
        record(tmp_path, store)


def test_a_refusal_that_no_other_place_can_cure_is_told_at_once(tmp_path: Path) -> None:
    def forget_the_pool(store: Racing, command: CreateInstance) -> None:
        store.put(POOLS, "default", None)

    with pytest.raises(NotFound):
        record(tmp_path, racing(forget_the_pool, 0))


def test_a_size_is_limits_that_may_be_overridden(tmp_path: Path) -> None:
    row = record(tmp_path, ready_store(), instance_type="c2-m4", config={"limits.cpu": "1"})
    assert (row.config["limits.cpu"], row.config["limits.memory"]) == ("1", "4096MB")


@pytest.mark.parametrize(
    ("size", "limits"),
    [
        ("c2", {"cpu": "2"}),
        ("m0.5", {"memory": "512MB"}),
        ("c0.5-m1", {"cpu": "1", "cpu.allowance": "50%", "memory": "1024MB"}),
        ("c2.5", {"cpu": "3", "cpu.allowance": "83%"}),
    ],
)
def test_a_size_may_be_of_one_kind_and_of_parts(size: str, limits: dict[str, str]) -> None:
    assert create.size_of(size) == {f"limits.{key}": value for key, value in limits.items()}


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        ({"name": "c_1"}, Invalid, "Invalid instance name"),
        ({"type": "virtual-machine"}, Invalid, "not supported: container"),
        ({"architecture": "z80"}, Invalid, "Architecture isn't supported: z80"),
        ({"instance_type": "t2.micro"}, Invalid, "c<CPUs>-m<GiB"),
        ({"instance_type": "-m1"}, Invalid, "c<CPUs>-m<GiB"),
        ({"instance_type": "c1m1"}, Invalid, "c<CPUs>-m<GiB"),
        ({"profiles": ["gone"]}, NotFound, "gone"),
        ({"profiles": ["default", "default"]}, Invalid, "Duplicate profile"),
        ({"config": {"limits.memory": "lots"}}, Invalid, "limits.memory"),
        ({"config": {"limits.memmory": "1GiB"}}, Invalid, "limits.memmory"),
        ({"config": {"raw.lxc": "nonsense"}}, Invalid, r"raw\.lxc"),
        ({"devices": {}}, Invalid, "No root device could be found"),
        ({"devices": {"root": {**ROOT, "pool": "nope"}}}, Invalid, "storage pool doesn't exist"),
        ({"devices": {"root": {**ROOT, "pool": "soon"}}}, Invalid, "Storage pool soon is pending"),
        ({"devices": {"root": ROOT, "second": ROOT}}, Invalid, "More than one root disk: root, second"),
        ({"devices": {"root": ROOT, "x": {"type": "teapot"}}}, Invalid, "teapot"),
        ({"devices": {"root": ROOT, "a/b": {"type": "none"}}}, Invalid, "1 to 64 letters"),
        ({"devices": {"root": ROOT, "n": {"type": "nic", "network": "br9"}}}, Invalid, "br9"),
        ({"config": {"limits.gpu": "1"}}, Exhausted, "none: no GPU"),
        ({"devices": {"root": ROOT, "g": {"type": "gpu", "pci": "0000:01:00.0"}}}, Invalid, "no member has"),
        ({"source": InstanceSource(type="teapot")}, Invalid, "Unknown source type teapot"),
        ({"source": InstanceSource(type="image")}, Invalid, "alias, fingerprint or properties"),
        ({"source": InstanceSource(type="image", fingerprint="abc")}, NotFound, "Image not found"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_recorded(
    tmp_path: Path, body: dict[str, Any], kind: type[Error], why: str
) -> None:
    store = ready_store()
    store.put(POOLS, "soon", Pool("soon", "dir", status="Pending"))
    with pytest.raises(kind, match=why):
        record(tmp_path, store, **body)
    assert not store.state.rows(INSTANCES)


def test_all_id_maps_may_be_taken_but_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxdpy.resources.instances.idmaps.IDMAP_SLOTS", 3)
    store = ready_store()
    slots = [record(tmp_path, store, name=f"c{number}").idmap for number in range(3)]
    assert sorted(slots) == [0, 1, 2]
    with pytest.raises((Exhausted, Conflict), match="All 3 id maps are taken"):
        record(tmp_path, store, name="c3")


FAR = InstanceSource("image", "alpine", server="https://images.test", protocol="simplestreams", secret="once")


def test_an_image_of_another_server_is_left_to_the_owner(tmp_path: Path) -> None:
    store = ready_store()
    row = record(tmp_path, store, source=FAR)
    assert (row.status, row.source.fingerprint, row.profiles) == ("Creating", "", ("default",))
    assert row.source.remote == Asked(
        "https://images.test", "alpine", protocol="simplestreams", secret="once"
    )
    image = Image("default", FINGERPRINT, architecture="x86_64", properties={"os": "alpine"})
    store.put(IMAGES, image.key, image)
    with pytest.raises(Conflict):
        store.run(TellImage(row.key, OTHER, image.key))
    told = store.run(TellImage(row.key, MEMBER_ID, image.key)).get(INSTANCES, row.key)
    assert told.source == Source("image", FINGERPRINT)
    assert (told.config["image.os"], told.config["volatile.base_image"]) == ("alpine", FINGERPRINT)
    assert store.state.get(IMAGES, image.key).last_used_at == store.now
    with pytest.raises(Conflict):
        store.run(TellImage(row.key, MEMBER_ID, image.key))


def test_an_image_of_another_server_that_is_kept_new_here_is_taken(tmp_path: Path) -> None:
    store = ready_store()
    remote = Remote("https://images.test", "alpine", protocol="simplestreams")
    with_image(store, remote=remote, auto_update=True, cached=True)
    assert record(tmp_path, store, source=FAR).source == Source("image", FINGERPRINT)
    assert store.state.get(IMAGES, f"default/{FINGERPRINT}").last_used_at == store.now


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"server": "http://images.test"}, Invalid),
        ({"protocol": "oci"}, Unsupported),
        ({"alias": ""}, Invalid),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_at_once(
    tmp_path: Path, wrong: dict[str, str], kind: type[Error]
) -> None:
    store = ready_store()
    with pytest.raises(kind, match=r"server|protocol|alias"):
        record(tmp_path, store, source=msgspec.structs.replace(FAR, **wrong))
    assert not store.state.rows(INSTANCES)
