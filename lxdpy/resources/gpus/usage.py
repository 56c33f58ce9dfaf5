"""PURE: how long GPUs were held, by instance: counted when a hold ends, in the apply that ends it.

Holds that go on are not in the table yet; they are counted from the ledger when somebody asks.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder

replace = msgspec.structs.replace
Way = Literal["exclusive", "shared", "mig"]
WAYS: tuple[Way, ...] = ("exclusive", "shared", "mig")
KEPT_FOR = 400 * 86400.0  # seconds that the account of an instance that is gone is kept


class Usage(Stored, frozen=True):
    """GPU-seconds of one instance, by how it held them. Key: that of the instance, also when it is gone."""

    exclusive: float = 0.0
    shared: float = 0.0
    mig: float = 0.0  # of MIG devices, each counted as one
    until: float = 0.0  # unix seconds; end of the last hold


USAGE: Table[Usage] = Table("gpu_usage", Usage)


def way_of(row: GpuRow, holder: Holder) -> Way:
    return "mig" if row.parent else holder.sharing


def add(usage: Usage, way: Way, seconds: float) -> Usage:
    return replace(usage, **{way: getattr(usage, way) + seconds})


def account(txn: Txn, row: GpuRow, holder: Holder) -> float:
    """A hold ends now: its time is added to its instance's. Returns when it ended, by the proposers' clocks.

    Never before it began, so that the holds of one exclusive GPU never overlap, whoever's clock is behind.
    """
    end = max(txn.now, holder.since)
    usage = txn.find(USAGE, holder.instance) or Usage()
    usage = add(usage, way_of(row, holder), end - holder.since)
    txn.put(USAGE, holder.instance, replace(usage, until=max(usage.until, end)))
    return end


def move(txn: Txn, before: str, after: str) -> None:
    """The account of a renamed instance goes with it, to what another of that name has used before."""
    moved = txn.find(USAGE, before)
    if moved is None:
        return
    there = txn.find(USAGE, after) or Usage()
    for way in WAYS:
        there = add(there, way, getattr(moved, way))
    txn.put(USAGE, after, replace(there, until=max(there.until, moved.until)))
    txn.delete(USAGE, before)


def holds(state: State | Txn) -> Iterator[tuple[GpuRow, Holder]]:
    """All that goes on."""
    for row in state.rows(GPUS).values():
        for holder in row.holders:
            yield row, holder


def used(state: State, now: float) -> dict[str, Usage]:
    """By instance, what was used until `now`, holds that go on included."""
    found = dict(state.rows(USAGE))
    for row, holder in holds(state):
        usage = found.get(holder.instance) or Usage()
        usage = add(usage, way_of(row, holder), max(0.0, now - holder.since))
        found[holder.instance] = replace(usage, until=max(usage.until, now))
    return found
