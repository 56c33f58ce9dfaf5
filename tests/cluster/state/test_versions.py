"""Two versions of one noun side by side: the newer has a field and a command that the older does not know."""

import pytest

from cluster.errors import Unavailable
from cluster.state.command import Command, entry_of
from cluster.state.machine import CannotApply, Machine, digest
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn


class OldCoin(Stored, frozen=True):
    value: int


class Coin(Stored, frozen=True):
    value: int
    colour: str = "grey"
    marks: tuple[str, ...] = ()


OLD: Table[OldCoin] = Table("coins", OldCoin)
COINS: Table[Coin] = Table("coins", Coin)


class OldPut(Command, frozen=True, tag="coin.put"):
    value: int

    def apply(self, txn: Txn) -> None:
        txn.put(OLD, "a", OldCoin(self.value))


class Put(Command, frozen=True, tag="coin.put"):
    value: int
    colour: str = "grey"

    def level(self) -> int:
        return 2 if self.colour == "red" else self.since  # and forgets that other colours are as new

    def apply(self, txn: Txn) -> None:
        txn.put(COINS, "a", Coin(self.value, self.colour))


class Melt(Command, frozen=True, tag="coin.melt"):
    since = 2

    def apply(self, txn: Txn) -> None:
        txn.delete(COINS, "a")


def level_of(state: State) -> int:
    return 1 if state.index < 10 else 2


def older() -> Machine:
    return Machine([OLD], [OldPut])


def newer() -> Machine:
    return Machine([COINS], [Put, Melt], features=2, level=level_of)


def entry(command: Command) -> bytes:
    return entry_of(command, request_id=repr(command), proposer="m", proposed_at=1.0)


def test_a_new_field_at_its_default_is_read_by_both_and_is_no_difference() -> None:
    old, new = older(), newer()
    for machine in (old, new):
        machine.apply(1, entry(Put(5)))
    assert digest(old.state) == digest(new.state)
    loaded = older()
    loaded.load(new.dump_chunks(new.state, new.remembered()))
    assert digest(loaded.state) == digest(new.state)


def test_a_field_set_to_what_is_its_default_is_no_difference_either() -> None:
    one, two = newer(), newer()
    one.apply(1, entry(Put(5)))
    two.apply(1, entry(Put(5, "".join(["gr", "ey"]))))
    assert digest(one.state) == digest(two.state)


def test_who_does_not_know_a_field_stops_and_does_not_leave_it_out() -> None:
    old = older()
    with pytest.raises(CannotApply, match=r"cannot read it: .*colour"):
        old.apply(3, entry(Put(5, "blue")))
    assert old.state.index == 0


def test_who_is_too_old_for_an_entry_stops_and_says_what_to_do() -> None:
    for command in (Put(5, "red"), Melt()):
        with pytest.raises(CannotApply, match="entry 3 is of feature level 2, this version has 1: update"):
            older().apply(3, entry(command))


def test_what_some_member_does_not_know_is_not_proposed() -> None:
    machine = newer()
    machine.admit(Put(5))
    for command in (Put(5, "red"), Melt()):
        with pytest.raises(Unavailable, match="needs feature level 2; the cluster has 1"):
            machine.admit(command)
    machine.apply(10, entry(Put(5)))
    machine.admit(Melt())


def test_a_dump_of_a_higher_level_is_refused_whatever_is_in_it() -> None:
    new = newer()
    new.apply(10, entry(Put(5)))
    with pytest.raises(CannotApply, match="snapshot is of feature level 2"):
        older().load(new.dump_chunks(new.state))


def test_a_dump_with_a_field_that_this_version_does_not_know_is_refused() -> None:
    new = newer()
    new.apply(1, entry(Put(5, "blue")))
    with pytest.raises(CannotApply, match="colour"):
        older().load(new.dump_chunks(new.state))


def test_who_is_older_than_the_cluster_stops_also_if_it_knows_every_command() -> None:
    behind = Machine([COINS], [Put], features=1, level=level_of)
    behind.apply(9, entry(Put(5)))
    with pytest.raises(CannotApply, match="the cluster is of feature level 2, this version has 1: update"):
        behind.apply(10, entry(Put(6)))
