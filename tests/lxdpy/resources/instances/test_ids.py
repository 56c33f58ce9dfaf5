import pytest

from cluster.errors import Conflict, Exhausted, Invalid
from lxdpy.host.idmap import Hole
from lxdpy.resources.instances.commands import DeleteInstance, RenameInstance, ReserveIds
from lxdpy.resources.instances.ids import check_ids, fits, holes_of, wanted
from lxdpy.resources.instances.model import (
    IDMAP_BASE,
    IDMAP_SIZE,
    IDMAPS,
    INSTANCES,
    IdRange,
    Instance,
)
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.instances.scene import instance, ready_store

ISOLATED = {"security.idmap.isolated": "true"}


def taken(store: LocalStore) -> dict[str, str]:
    return {slot: row.instance for slot, row in store.state.rows(IDMAPS).items()}


def reserved(store: LocalStore, row: Instance, size: int = IDMAP_SIZE, base: int = 0) -> Instance:
    store.run(ReserveIds(row.key, MEMBER_ID, size, base))
    return store.state.get(INSTANCES, row.key)


def test_a_larger_map_takes_slots_in_a_row_that_nobody_has() -> None:
    store = ready_store()
    one, _ = instance(store, "c1"), instance(store, "c2")
    row = reserved(store, one, 3 * IDMAP_SIZE - 1)
    assert row.host_ids == IdRange(IDMAP_BASE + 2 * IDMAP_SIZE, 3 * IDMAP_SIZE - 1)
    assert taken(store) == {"1": "default/c2", **dict.fromkeys(("2", "3", "4"), "default/c1")}
    assert fits(row, IdRange(0, 3 * IDMAP_SIZE - 1))
    assert not fits(row, IdRange(0, IDMAP_SIZE))
    row = reserved(store, row)
    assert (row.ids, row.host_ids.size) == (None, IDMAP_SIZE)
    assert taken(store) == {"1": "default/c2", "2": "default/c1"}


def test_a_map_at_a_place_takes_all_slots_that_it_touches_and_no_others() -> None:
    store = ready_store()
    one, two = instance(store, "c1"), instance(store, "c2")
    base = IDMAP_BASE + 4 * IDMAP_SIZE + 7
    row = reserved(store, one, base=base)
    assert row.host_ids == IdRange(base, IDMAP_SIZE)
    assert taken(store) == {"1": "default/c2", "4": "default/c1", "5": "default/c1"}
    for near in (base - 100, base + IDMAP_SIZE, base):
        with pytest.raises(Conflict, match="another instance"):
            reserved(store, two, base=near)
    assert reserved(store, row, base=base) == row
    store.run(RenameInstance("default/c1", "c9"))
    assert taken(store) == {"1": "default/c2", "4": "default/c9", "5": "default/c9"}
    store.run(DeleteInstance("default/c9", one.uuid))
    assert taken(store) == {"1": "default/c2"}


def test_a_refused_reservation_changes_nothing() -> None:
    store = ready_store()
    row = instance(store, "c1")
    with pytest.raises(Exhausted):
        reserved(store, row, 2**32 - IDMAP_BASE)
    with pytest.raises(Invalid):
        reserved(store, row, base=2**32 - IDMAP_SIZE)
    assert taken(store) == {"0": "default/c1"}
    assert store.state.get(INSTANCES, row.key) == row


def test_size_and_base_count_when_the_map_is_isolated() -> None:
    config = {"security.idmap.size": "100", "security.idmap.base": "2000000"}
    assert wanted(config) == IdRange(0, IDMAP_SIZE)
    assert wanted(config | ISOLATED) == IdRange(2_000_000, 100)
    assert wanted(ISOLATED) == IdRange(0, IDMAP_SIZE)
    with pytest.raises(Invalid, match=r"security\.idmap\.base"):
        check_ids(ISOLATED | {"security.idmap.base": "4294960000"})


def test_ids_are_let_through_by_lines() -> None:
    config = {"raw.idmap": "both 1000 1000\nuid 50-59 500-509\ngid 60 500"}
    assert holes_of(config, IDMAP_SIZE) == (
        Hole(1000, 1000, 1), Hole(500, 50, 10, groups=False), Hole(500, 60, 1, users=False)
    )  # fmt: skip
    assert holes_of({}, IDMAP_SIZE) == ()


@pytest.mark.parametrize(
    "lines",
    [
        "both 1000 0", "uid 0 1000", "both 1-3 1-2", "both 9-8 9-8", "gid 999999-1000000 5-6", "uid 5 65536",
        "both 1000 1000\nuid 2000 1000", "uid 5-9 5-9\nuid 9 20",
    ],
)  # fmt: skip
def test_lines_that_would_break_the_map_are_refused(lines: str) -> None:
    with pytest.raises(Invalid, match=r"raw\.idmap"):
        check_ids({"raw.idmap": lines})
