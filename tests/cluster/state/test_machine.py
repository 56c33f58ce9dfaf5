"""The state machine, on a toy noun of its own."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Conflict, ErrorInfo
from cluster.state.command import CALLER, Command, entry_of
from cluster.state.machine import CannotApply, Machine, digest
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn


class Coin(Stored, frozen=True):
    value: int
    note: str = ""


COINS: Table[Coin] = Table("coins", Coin)


class Put(Command, frozen=True, tag="coin.put"):
    key: str
    value: int

    def apply(self, txn: Txn) -> None:
        txn.put(COINS, self.key, Coin(self.value, f"{txn.now:g}"))


class Move(Command, frozen=True, tag="coin.move"):
    """Takes first and looks afterwards, so that a refusal has something to take back."""

    source: str
    target: str

    def apply(self, txn: Txn) -> None:
        coin = txn.get(COINS, self.source)
        txn.delete(COINS, self.source)
        txn.put(COINS, self.target, coin)
        if coin.value < 0:
            raise Conflict("debts cannot be moved")


class Broken(Command, frozen=True, tag="coin.broken"):
    def apply(self, txn: Txn) -> None:
        txn.put(COINS, "half", Coin(1))
        raise ZeroDivisionError


def machine() -> Machine:
    return Machine([COINS], [Put, Move, Broken])


def entry(command: Command, request: str = "", at: float = 1.0) -> bytes:
    request = request or f"{type(command).__name__}-{hash(command)}"
    return entry_of(command, request_id=request, proposer="m", proposed_at=at)


def rows(state: State) -> dict[str, int]:
    return {key: coin.value for key, coin in state.rows(COINS).items()}


def test_a_command_changes_the_state_and_says_what_it_changed() -> None:
    it = machine()
    outcome = it.apply(7, entry(Put("a", 5)))
    assert outcome.error is None
    assert [(c.key, c.before, c.after) for c in outcome.changes] == [("a", None, Coin(5, "1"))]
    assert it.state.index == 7


def test_a_snapshot_of_the_state_never_changes() -> None:
    it = machine()
    it.apply(1, entry(Put("a", 1)))
    before = it.state
    it.apply(2, entry(Put("a", 2)))
    it.apply(3, entry(Put("b", 3)))
    assert rows(before) == {"a": 1}
    assert rows(it.state) == {"a": 2, "b": 3}


def test_a_refused_command_changes_nothing_but_the_index() -> None:
    it = machine()
    it.apply(1, entry(Put("a", -1)))
    it.apply(2, entry(Put("b", 2)))
    kept = it.state.tables
    outcome = it.apply(3, entry(Move("a", "b")))
    assert outcome.error == ErrorInfo("conflict", "debts cannot be moved")
    assert outcome.changes == ()
    assert it.state.tables == kept
    assert it.state.index == 3


def test_a_bug_in_a_command_is_an_answer_and_changes_nothing() -> None:
    it = machine()
    outcome = it.apply(1, entry(Broken()))
    assert outcome.error is not None
    assert outcome.error.kind == "internal"
    assert rows(it.state) == {}


def test_a_repeated_request_gets_the_first_answer_and_is_not_applied_again() -> None:
    it = machine()
    it.apply(1, entry(Put("a", -1), "r1"))
    first = it.apply(2, entry(Move("a", "b"), "r2"))
    it.apply(3, entry(Put("a", 4), "r3"))
    again = it.apply(4, entry(Move("a", "b"), "r2"))
    assert (again.error, again.index) == (first.error, 4)
    it.apply(5, entry(Put("a", -1), "r1"))
    assert rows(it.state) == {"a": 4}


@pytest.mark.parametrize("damaged", [b"", b"\x93", entry(Put("a", 1))[:-1], msgspec.msgpack.encode({"a": 1})])
def test_what_this_version_cannot_read_stops_it(damaged: bytes) -> None:
    it = machine()
    with pytest.raises(CannotApply, match="entry 1"):
        it.apply(1, damaged)
    assert it.state.index == 0


def test_a_command_of_a_newer_version_stops_it() -> None:
    class Newer(Command, frozen=True, tag="coin.newer"):
        """Unknown to the machine."""

    with pytest.raises(CannotApply, match="entry 9"):
        machine().apply(9, entry(Newer()))


def test_a_loaded_dump_is_the_same_state_with_the_same_memory_of_requests() -> None:
    it = machine()
    for number in range(1200):
        it.apply(number + 1, entry(Put(f"k{number % 700}", number), f"r{number}"))
    other = machine()
    other.load(it.dump_chunks(it.state, it.remembered()))
    assert digest(other.state) == digest(it.state)
    assert other.state.index == it.state.index
    other.apply(1300, entry(Put("k1", 99), "r5"))
    assert digest(other.state) == digest(it.state)


def test_loading_over_an_older_state_tells_the_difference() -> None:
    it, other = machine(), machine()
    for key in ("a", "b"):
        other.apply(1, entry(Put(key, 1), f"o{key}"))
    it.apply(5, entry(Put("b", 2)))
    it.apply(6, entry(Put("c", 3)))
    changes = other.load(it.dump_chunks(it.state))
    assert [(c.key, c.before is None, c.after is None) for c in changes] == [
        ("a", False, True), ("b", False, False), ("c", True, False),
    ]  # fmt: skip


def test_a_damaged_dump_is_refused_and_leaves_the_state() -> None:
    it = machine()
    it.apply(1, entry(Put("a", 1)))
    chunks = list(it.dump_chunks(it.state))
    for broken in ([], [b"junk"], [chunks[0], b"\xc1"], [chunks[0], chunks[1][:-2]]):
        with pytest.raises(CannotApply, match="snapshot"):
            it.load(broken)
    assert rows(it.state) == {"a": 1}


def test_a_change_names_the_caller_on_whose_behalf_it_was_made() -> None:
    it = machine()
    token = CALLER.set({"username": "root", "protocol": "unix"})
    try:
        written = entry(Put("a", 1))
    finally:
        CALLER.reset(token)
    assert it.apply(1, written).changes[0].by == {"username": "root", "protocol": "unix"}
    assert it.apply(2, entry(Put("a", 2))).changes[0].by == {}


commands = st.one_of(
    st.builds(Put, st.sampled_from("abc"), st.integers(-2, 2)),
    st.builds(Move, st.sampled_from("abc"), st.sampled_from("abc")),
    st.just(Broken()),
)


@given(st.lists(commands, max_size=30))
def test_members_that_apply_the_same_log_are_equal_also_across_a_snapshot(log: list[Command]) -> None:
    one, two = machine(), machine()
    for index, command in enumerate(log, 1):
        written = entry(command, f"r{index}", float(index))
        one.apply(index, written)
        if index == len(log) // 2:
            fresh = machine()
            fresh.load(two.dump_chunks(two.state, two.remembered()))
            two = fresh
            two.apply(index, written)
        else:
            two.apply(index, written)
        assert digest(one.state) == digest(two.state)
