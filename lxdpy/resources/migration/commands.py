"""Raft commands of moves."""

import msgspec

from cluster.errors import Conflict, Invalid
from cluster.membership.model import MEMBERS, name_of
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.backups import model as backups
from lxdpy.resources.gpus.commands import RACED, Grant, drop, grant, regrant
from lxdpy.resources.instances.commands import LAST_POWER, RENAMED_FROM, free_places, owned
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance, Move
from lxdpy.resources.migration.model import RESIDUES, Residue
from lxdpy.resources.profiles.model import Devices
from lxdpy.resources.snapshots.commands import RESTORING
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot, all_of
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.disks import check_disks

replace = msgspec.structs.replace
ORIGIN = "volatile.evacuate.origin"  # name of the member that it goes back to when that is restored


class ReserveMove(Command, frozen=True, tag="move.reserve"):
    """A place for it elsewhere, with these GPUs, before it is stopped here. Conflict (RACED) if one is gone.

    Its owner alone may give that up, and does so when it finds it after a crash.
    """

    key: str
    owner: str
    move: Move

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if before.reserved:
            raise Conflict(f"A place is kept for it already: {before.name}")
        _check(txn, before, self.move)
        grant(txn, self.key, self.move.to, self.move.grants, started=False)
        txn.put(INSTANCES, self.key, replace(before, reserved=self.move))


class CancelReservation(Command, frozen=True, tag="move.cancel"):
    """It stays, and nothing is kept for it elsewhere. Repeating it changes nothing."""

    key: str
    owner: str

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if before.reserved:
            free_places(txn, replace(before, move=None))
            txn.put(INSTANCES, self.key, replace(before, reserved=None))


class BeginMove(Command, frozen=True, tag="move.begin"):
    """The instance is to go to another member or pool; until it is there it cannot be started or changed."""

    key: str
    owner: str
    move: Move

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if before.status != "Stopped":
            raise Conflict(f"Instance is not at rest: {before.name}")
        if before.reserved not in (None, self.move):
            raise Conflict(f"A place is kept for it elsewhere: {before.name}")
        _check(txn, before, self.move)
        _forget(txn, Residue(self.move.to, self.move.pool, self.key))
        txn.put(INSTANCES, self.key, replace(before, move=self.move, reserved=None, stayed=""))


class FinishMove(Command, frozen=True, tag="move.finish"):
    """All of it is there: from here on it is the other member's, with `grants` as its GPUs.

    That it is to be started there, and where it comes from if that is emptied, is noted.
    """

    key: str
    id: str
    grants: tuple[Grant, ...] = ()

    def apply(self, txn: Txn) -> None:
        before, move = _moving(txn, self.key, self.id)
        for kept in set(move.grants) - set(self.grants):
            drop(txn, kept.uuid, self.key, kept.device)
        config = regrant(txn, self.key, move.to, self.grants, before.config, started=False)
        config = _noted(config, move, stays=move.to == before.location)
        after = replace(before, location=move.to, pool=move.pool, config=config, move=None)
        if move.pool != before.pool:
            after = replace(after, devices=_in_pool(txn, before, move.pool))
            for snapshot in all_of(txn, self.key):
                devices = _in_pool(txn, snapshot, move.pool)
                txn.put(SNAPSHOTS, snapshot.key, replace(snapshot, devices=devices))
        txn.put(INSTANCES, self.key, after)
        _leave(txn, Residue(before.location, before.pool, self.key))


class AbortMove(Command, frozen=True, tag="move.abort"):
    """It stays where it is, for this reason. If it ran, its owner finds `reserved`, and starts it again."""

    key: str
    id: str
    reason: str

    def apply(self, txn: Txn) -> None:
        before, move = _moving(txn, self.key, self.id)
        free_places(txn, before)
        after = replace(before, move=None, stayed=self.reason)
        if move.start:
            config = {**before.config, LAST_POWER: "RUNNING"}
            after = replace(after, reserved=replace(move, grants=()), config=config)
        txn.put(INSTANCES, self.key, after)
        _leave(txn, Residue(move.to, move.pool, self.key))


class ForgetResidue(Command, frozen=True, tag="residue.forget"):
    """It is gone. Repeating it changes nothing."""

    key: str

    def apply(self, txn: Txn) -> None:
        if txn.find(RESIDUES, self.key) is not None:
            txn.delete(RESIDUES, self.key)


def _check(txn: Txn, before: Instance, move: Move) -> None:
    """Raises Conflict or Invalid unless it could be moved there, were it stopped."""
    if before.move or {RENAMED_FROM, RESTORING} & before.config.keys():
        raise Conflict(f"Instance is not at rest: {before.name}")
    if backups.all_of(txn, before.key):
        raise Invalid("Instance has backups")
    if (before.location, before.pool) == (move.to, move.pool):
        raise Invalid("Instance is there already", member=move.to, pool=move.pool)
    member = txn.find(MEMBERS, move.to)
    if member is None or member.status != "ready":
        raise Conflict(f"Member {name_of(txn, move.to)} takes no instances", **{RACED: "member"})
    txn.get(POOLS, move.pool)
    check_disks(txn, replace(before, location=move.to))


def rename_origin(txn: Txn, before: str, after: str) -> None:
    """Who was moved away by an evacuation of that member, or is on its way, goes back to it."""
    for row in list(txn.rows(INSTANCES).values()):
        if row.config.get(ORIGIN) == before:
            row = replace(row, config={**row.config, ORIGIN: after})
        if row.move is not None and row.move.evacuated == before:
            row = replace(row, move=replace(row.move, evacuated=after))
        txn.put(INSTANCES, row.key, row)


def _noted(config: dict[str, str], move: Move, *, stays: bool) -> dict[str, str]:
    """The note of an earlier evacuation goes with any other move to another member."""
    kept = {key: value for key, value in config.items() if key != ORIGIN or stays}
    if move.evacuated:
        kept[ORIGIN] = move.evacuated
    return {**kept, LAST_POWER: "RUNNING"} if move.start else kept


def _moving(txn: Txn, key: str, id: str) -> tuple[Instance, Move]:
    """The row, if it is being moved by this very move. Raises Conflict, NotFound."""
    before = txn.get(INSTANCES, key)
    if before.move is None or before.move.id != id:
        raise Conflict(f"Instance is not being moved any more: {before.name}")
    return before, before.move


def _in_pool(txn: Txn, row: Instance | Snapshot, pool: str) -> Devices:
    """Its own devices, with a root disk in that pool; a profile's root disk becomes its own."""
    for name, options in expanded(txn, row)[1].items():
        if options.get("type") == "disk" and options.get("path") == "/" and options.get("pool"):
            return {**row.devices, name: {**options, "pool": pool}}
    return row.devices


def _leave(txn: Txn, residue: Residue) -> None:
    txn.put(RESIDUES, residue.key, residue)


def _forget(txn: Txn, residue: Residue) -> None:
    """What is there will be replaced."""
    if txn.find(RESIDUES, residue.key) is not None:
        txn.delete(RESIDUES, residue.key)


COMMANDS: tuple[type[Command], ...] = (
    BeginMove,
    FinishMove,
    AbortMove,
    ForgetResidue,
    ReserveMove,
    CancelReservation,
)
