"""A small state machine for the tests of Raft: counters that can be raised or refused."""

from cluster.errors import Conflict
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn


class Counter(Stored, frozen=True):
    value: int = 0
    padding: str = ""


COUNTERS = Table("counters", Counter)


class Raise(Command, frozen=True, tag="counter.raise"):
    key: str
    padding: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.find(COUNTERS, self.key) or Counter()
        txn.put(COUNTERS, self.key, Counter(before.value + 1, self.padding))


class Refuse(Command, frozen=True, tag="counter.refuse"):
    def apply(self, txn: Txn) -> None:
        raise Conflict("never", counter="all")


def machine() -> Machine:
    return Machine([COUNTERS], [Raise, Refuse])


def value(state: State, key: str) -> int:
    row = state.find(COUNTERS, key)
    return 0 if row is None else row.value


def values(state: State) -> dict[str, int]:
    return {key: row.value for key, row in state.rows(COUNTERS).items()}


def entry(command: Command, request_id: str) -> bytes:
    return entry_of(command, request_id=request_id, proposer="test", proposed_at=1.0)
