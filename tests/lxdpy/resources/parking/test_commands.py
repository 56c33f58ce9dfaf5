import pytest

from cluster.errors import Error
from cluster.state.command import Command
from lxdpy.resources.gpus.commands import Grant, granted
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances.commands import SetInstanceStatus, StartInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, LEASED, PARKED, WARNED, Instance
from lxdpy.resources.lifecycle import Lifecycle, all_events
from lxdpy.resources.parking.commands import ParkInstance, RenewLease, UnparkInstance, WarnOfLease
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.gpus.scene import add, created, gpu

KEY, OTHER = "default/c1", "default/c2"
GRANT = Grant("gpu", "GPU-1")


def scene() -> LocalStore:
    """c1 runs with the only GPU, c2 without."""
    store = LocalStore()
    add(store, gpu("GPU-1"))
    created(store, "c1", "GPU-1", status="Running", started=True, **{"limits.gpu": "1"})
    store.put(INSTANCES, OTHER, Instance("default", "c2", "c2", MEMBER_ID, status="Running"))
    return store


def row(store: LocalStore) -> Instance:
    return store.state.get(INSTANCES, KEY)


def holders(store: LocalStore) -> list[str]:
    return [holder.instance for holder in store.state.get(GPUS, "GPU-1").holders]


def refused(store: LocalStore, command: Command) -> str:
    before = store.state.tables
    with pytest.raises(Error) as refusal:
        store.run(command)
    assert store.state.tables == before
    return refusal.value.message


def test_a_parked_instance_has_no_gpus_until_it_is_unparked() -> None:
    store = scene()
    heard: list[Lifecycle] = []
    store.watch(lambda applied: heard.extend(all_events(applied.changes)))
    assert "gpu" in expanded(store.state, row(store))[1]
    store.run(ParkInstance(KEY, MEMBER_ID, "idle"))
    store.run(ParkInstance(KEY, MEMBER_ID, "asked"))  # once more: nothing
    assert row(store).config[PARKED] == "idle"
    assert holders(store) == []
    assert "gpu" not in expanded(store.state, row(store))[1]
    store.run(UnparkInstance(KEY, MEMBER_ID, (GRANT,)))
    assert holders(store) == [KEY]
    assert granted(row(store).config) == {"gpu": ("GPU-1",)}
    assert PARKED not in row(store).config
    assert [(event.action, event.context) for event in heard] == [
        ("instance-gpu-parked", {"reason": "idle"}),
        ("instance-gpu-unparked", {}),
    ]


def test_gpus_that_another_took_meanwhile_are_not_had_again() -> None:
    store = scene()
    store.run(ParkInstance(KEY, MEMBER_ID))
    store.run(StartInstance(OTHER, MEMBER_ID, (GRANT,)))
    assert "is held by c2" in refused(store, UnparkInstance(KEY, MEMBER_ID, (GRANT,)))
    assert holders(store) == [OTHER]


def test_a_stop_ends_parking_and_lease() -> None:
    store = scene()
    store.run(RenewLease(KEY))
    store.run(WarnOfLease(KEY, MEMBER_ID, 5.0))
    store.run(ParkInstance(KEY, MEMBER_ID))
    assert {LEASED, WARNED}.isdisjoint(row(store).config)
    store.run(SetInstanceStatus(KEY, MEMBER_ID, "Stopped"))
    assert PARKED not in row(store).config
    assert "gpu" in expanded(store.state, row(store))[1]


def test_who_renews_is_warned_again() -> None:
    store = scene()
    store.run(WarnOfLease(KEY, MEMBER_ID, 5.0))
    store.run(WarnOfLease(KEY, MEMBER_ID, 6.0))
    assert row(store).config[WARNED] == "5"
    store.run(RenewLease(KEY))
    assert row(store).config[LEASED] == f"{store.now:.0f}"
    assert WARNED not in row(store).config


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (ParkInstance(OTHER, MEMBER_ID), "holds no GPUs"),
        (RenewLease(OTHER), "holds no GPUs"),
        (UnparkInstance(KEY, MEMBER_ID), "is not parked"),
        (ParkInstance(KEY, "another"), "Instance is on"),
    ],
)
def test_what_cannot_be_is_refused(command: Command, said: str) -> None:
    assert said in refused(scene(), command)


def test_only_a_running_instance_is_parked() -> None:
    store = scene()
    store.run(SetInstanceStatus(KEY, MEMBER_ID, "Stopped", hold=True))
    assert "is not running" in refused(store, ParkInstance(KEY, MEMBER_ID))
