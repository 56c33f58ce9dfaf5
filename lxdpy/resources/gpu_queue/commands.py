"""Raft commands of the queue for GPUs."""

import msgspec

from cluster.errors import Conflict, Invalid
from cluster.state.command import Command
from cluster.state.txn import State, Txn
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn, waiting_for
from lxdpy.resources.gpus.commands import RACED, Grant, regrant
from lxdpy.resources.gpus.model import GPUS_KEPT, UNQUEUED, Kept
from lxdpy.resources.instances.commands import check_name_free, owned, record
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.parking.commands import without
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.projects.permitted import check_gpus

replace = msgspec.structs.replace
Grants = tuple[Grant, ...]


class JoinQueue(Command, frozen=True, tag="gpu_queue.join"):
    """Wait, behind all of the same priority. The names of what is to be created are taken from now on."""

    turn: Turn

    def apply(self, txn: Txn) -> None:
        turn = self.turn
        txn.get(PROJECTS, turn.project)
        if turn.start:
            check_due(txn, turn.start, unparks=turn.unparks)
        for row in turn.instances:
            check_name_free(txn, row)
        fresh = replace(turn, status="waiting", since=txn.index, location="", over_at=0.0)
        txn.insert(GPU_QUEUE, turn.id, fresh)


class KeepGpus(Command, frozen=True, tag="gpu_queue.keep"):
    """Keep these GPUs, and no others, for one that waits: nobody behind it is granted any of them.

    With no uuids nothing is kept for anybody.
    """

    id: str
    uuids: tuple[str, ...] = ()

    def apply(self, txn: Txn) -> None:
        turn = still_waiting(txn, self.id) if self.uuids else None
        for uuid in sorted(txn.rows(GPUS_KEPT)):
            if uuid not in self.uuids:
                txn.delete(GPUS_KEPT, uuid)
        if turn is not None:
            for uuid in self.uuids:
                txn.put(GPUS_KEPT, uuid, Kept(turn.id, turn.label, turn.priority, turn.since))


class GrantTurn(Command, frozen=True, tag="gpu_queue.grant"):
    """All that one request asked for, or nothing of it: instances with the place that was found for them, or
    the start or unpark of one. `grants` has the GPUs of each.
    """

    id: str
    grants: tuple[Grants, ...]
    instances: tuple[Instance, ...] = ()

    def apply(self, txn: Txn) -> None:
        turn = still_waiting(txn, self.id)
        give(txn, turn, self.instances, self.grants)


class CreateMany(Command, frozen=True, tag="gpu_queue.many"):
    """Several instances at once, without waiting: all or none. `turn` has them with their places."""

    turn: Turn
    grants: tuple[Grants, ...]

    def apply(self, txn: Txn) -> None:
        turn = replace(self.turn, since=txn.index)
        txn.insert(GPU_QUEUE, turn.id, turn)
        give(txn, turn, turn.instances, self.grants, waited=False)


class LeaveQueue(Command, frozen=True, tag="gpu_queue.leave"):
    """Wait no more, and get nothing: cancelled, or for the reason `err`."""

    id: str
    err: str
    cancelled: bool = False

    def apply(self, txn: Txn) -> None:
        turn = still_waiting(txn, self.id)
        after = replace(turn, status="ended", err=self.err, cancelled=self.cancelled, over_at=txn.now)
        txn.put(GPU_QUEUE, turn.id, after)
        lift(txn, turn)


class FinishTurn(Command, frozen=True, tag="gpu_queue.finish"):
    """The owner has carried out a start or unpark that was granted, or failed to. To be repeated freely."""

    id: str
    err: str = ""

    def apply(self, txn: Txn) -> None:
        turn = txn.get(GPU_QUEUE, self.id)
        if turn.status == "granted":
            txn.put(GPU_QUEUE, turn.id, replace(turn, status="done", err=self.err, over_at=txn.now))


class ForgetTurns(Command, frozen=True, tag="gpu_queue.forget"):
    """Those that were over before `before`, unix seconds, and of which nothing is under way any more."""

    before: float

    def apply(self, txn: Txn) -> None:
        for turn in forgettable(txn, self.before):
            txn.delete(GPU_QUEUE, turn.id)


def give(
    txn: Txn, turn: Turn, instances: tuple[Instance, ...], grants: tuple[Grants, ...], *, waited: bool = True
) -> None:
    """The request is granted. Raises Conflict with the fact RACED, Forbidden, or what a create may raise."""
    wanted = 1 if turn.start else len(turn.instances)
    if len(grants) != wanted or len(instances) != (0 if turn.start else wanted):
        raise Invalid(f"{wanted} instances wait, {len(grants)} were placed", operation=turn.id)
    home = txn.get(INSTANCES, turn.start).location if turn.start else ""
    if len(instances) == 1:
        home = instances[0].location
    placed = replace(turn, status="granted", instances=instances, location=home, over_at=txn.now)
    txn.put(GPU_QUEUE, turn.id, placed)
    lift(txn, turn)
    order = turn.order if waited else UNQUEUED
    for row, own in zip(instances, grants, strict=False):
        record(txn, row, own, turn.snapshots if len(instances) == 1 else (), order)
    if turn.start:
        before = check_due(txn, turn.start, unparks=turn.unparks)
        owned(txn, before.key, home)
        config = regrant(txn, before.key, home, grants[0], before.config, started=turn.unparks, order=order)
        txn.put(INSTANCES, before.key, replace(before, config=without(config, PARKED)))
        check_gpus(txn, before.project)


def lift(txn: Txn, turn: Turn) -> None:
    """Nothing is kept for it any more."""
    for uuid, kept in sorted(txn.rows(GPUS_KEPT).items()):
        if kept.turn == turn.id:
            txn.delete(GPUS_KEPT, uuid)


def still_waiting(txn: Txn, id: str) -> Turn:
    """Raises NotFound, Conflict."""
    turn = txn.get(GPU_QUEUE, id)
    if turn.status != "waiting":
        raise Conflict("It does not wait for GPUs any more", **{RACED: "turn"})
    return turn


def check_due(state: Txn | State, key: str, *, unparks: bool = False) -> Instance:
    """The instance, which does not wait yet. Raises NotFound, Invalid, Conflict."""
    row = state.get(INSTANCES, key)
    check_fit(row, unparks=unparks)
    if waiting_for(state, key) is not None:
        raise Conflict("The instance already waits for GPUs", instance=row.name)
    return row


def check_fit(row: Instance, *, unparks: bool) -> None:
    """That it is off, to be started; or parked. Raises Invalid, Conflict."""
    if row.status == "Creating" or row.move is not None:
        raise Conflict(f"The instance is being {'moved' if row.move else 'created'}")
    runs = row.status not in ("Stopped", "Error")
    if unparks and not runs:
        raise Invalid("The instance is not running", instance=row.name)
    if unparks and PARKED not in row.config:
        raise Invalid("The instance is not parked", instance=row.name)
    if runs and not unparks:
        raise Invalid("The instance is already running")


def rename_target(txn: Txn, before: str, after: str) -> None:
    """Who waits for GPUs of that member waits on for them."""
    for turn in list(txn.rows(GPU_QUEUE).values()):
        if turn.target == before:
            txn.put(GPU_QUEUE, turn.id, replace(turn, target=after))


def forgettable(state: Txn | State, before: float) -> list[Turn]:
    """By id."""
    return [
        turn
        for _, turn in sorted(state.rows(GPU_QUEUE).items())
        if turn.status != "waiting" and turn.over_at < before and not _under_way(state, turn)
    ]


def _under_way(state: Txn | State, turn: Turn) -> bool:
    if turn.status != "granted":
        return False
    if turn.start:
        return state.find(INSTANCES, turn.start) is not None
    return any(building(state, row) for row in turn.instances)


def building(state: Txn | State, row: Instance) -> bool:
    """Whether that very instance is still being made."""
    now = state.find(INSTANCES, row.key)
    return now is not None and now.uuid == row.uuid and now.status == "Creating"


COMMANDS: tuple[type[Command], ...] = (
    JoinQueue,
    KeepGpus,
    GrantTurn,
    CreateMany,
    LeaveQueue,
    FinishTurn,
    ForgetTurns,
)
