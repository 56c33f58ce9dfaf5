"""What was counted on the way is what would be counted at the end."""

from random import Random
from typing import Any

import msgspec

from cluster.membership.model import INVENTORIES, MEMBERS, Inventory, Member
from cluster.scheduler.types import MemberView
from cluster.state.table import Table
from cluster.state.txn import Draft, State
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder
from lxdpy.resources.instances.census import CENSUS, Census
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.model import PROFILES, Profile

IDS = ("000000000001", "000000000002", "000000000003")


def written(state: State, table: Table[Any], key: str, row: msgspec.Struct | None) -> State:
    draft = Draft(state, state.index + 1)
    if row is None:
        draft.delete(table.name, key)
    else:
        draft.put(table.name, key, row)
    return draft.publish()


def something(dice: Random) -> tuple[Table[Any], str, msgspec.Struct]:
    """A row of any kind, often one that is there already, in another form."""
    member, number = dice.choice(IDS), dice.randrange(4)
    match dice.choice(["member", "inventory", "instance", "instance", "gpu", "gpu", "gpu", "profile"]):
        case "member":
            config = {"scheduler.instance": dice.choice(["all", "manual"])}
            status = dice.choice(["ready", "joining", "evacuated"])
            row = Member(member, f"n{number}{member[-1]}", status=status, config=config)  # type: ignore[arg-type]
            return MEMBERS, member, row
        case "inventory":
            return INVENTORIES, member, Inventory(member, "x86_64", number, number << 30)
        case "instance":
            return INSTANCES, f"default/c{number}", Instance("default", f"c{number}", "u", member)
        case "gpu":
            holders = tuple(Holder(f"lab/c{n}", "gpu", "shared", 0.0) for n in range(dice.randrange(3)))
            gpu = GpuRow(f"GPU-{number}", member, "nvidia", "A100", 1 << 30, holders=holders)
            return GPUS, gpu.uuid, gpu
    return PROFILES, "default/p", Profile("default", "p", description=str(number))


def seen(state: State) -> dict[str, MemberView]:
    return CENSUS.ask(state, lambda census: dict(census.views))


def test_every_state_is_seen_as_it_is() -> None:
    dice = Random(11)
    states = [State()]
    for _ in range(500):
        table, key, row = something(dice)
        gone = states[-1].find(table, key) is not None and dice.random() < 0.2
        states.append(written(states[-1], table, key, None if gone else row))
        if dice.random() < 0.5:
            asked = dice.choice(states[-4:])
            assert seen(asked) == Census(asked).views


def test_who_did_not_change_is_not_made_again() -> None:
    state = State()
    for id_ in IDS:
        state = written(state, MEMBERS, id_, Member(id_, f"n{id_[-1]}", status="ready"))
        state = written(state, GPUS, id_, GpuRow(id_, id_, "nvidia", "A100", 1 << 30))
    before = seen(state)
    after = seen(written(state, INSTANCES, "default/c1", Instance("default", "c1", "u", IDS[1])))
    assert [after[id_] is before[id_] for id_ in IDS] == [True, False, True]
    assert after[IDS[1]].instances == 1
