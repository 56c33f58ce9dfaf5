"""The GPU ledger's Raft commands, and the grant that other commands make inside their own apply.

A grant is checked here, where all members see the same rows in the same order: whatever a scheduler thought
on an older snapshot, one exclusive GPU never has two holders.
"""

from collections.abc import Collection

import msgspec

from cluster.errors import Conflict, Invalid
from cluster.membership.model import name_of
from cluster.state.command import Command
from cluster.state.table import Stored
from cluster.state.txn import State, Txn
from lxdpy.resources.gpus.model import GPUS, GPUS_KEPT, UNQUEUED, GpuRow, Holder, Order, Sharing
from lxdpy.resources.gpus.usage import account, move

replace = msgspec.structs.replace
HELD = "gpu.uuids"  # volatile key of a device: the GPUs it holds
LAST = "gpu.last"  # of one that holds none: those it held, which its next start asks for first
NOTES = (HELD, LAST, "gpu.nodes", "gpu.mounts")  # all that is noted of a device's GPUs, and files it brought
NOT_SEEN = ("member", "holders", "freed", "parts", "draining")  # of a row: what a member does not look at
RACED = "raced"  # fact of a Conflict that placing again on the newer state may cure


class Grant(Stored, frozen=True):
    """One GPU for one device of an instance, as the scheduler chose it."""

    device: str
    uuid: str
    sharing: Sharing = "exclusive"
    memory: int = 0
    anew: bool = False  # held by it in another way until now: that hold ends, as its time is counted apart


def forget_member(txn: Txn, member: str) -> None:
    """Its GPUs are gone with it; one that another member announced as well is that one's."""
    for row in list(txn.rows(GPUS).values()):
        if row.claimed_by == member:
            txn.put(GPUS, row.uuid, replace(row, claimed_by=""))
        elif row.member == member and row.claimed_by:
            txn.put(GPUS, row.uuid, replace(row, member=row.claimed_by, claimed_by="", holders=()))
        elif row.member == member:
            txn.delete(GPUS, row.uuid)


class ReportGpus(Command, frozen=True, tag="gpu.report"):
    """All GPUs a member sees. Holders stay; a card that is gone stays as `missing` while somebody holds it.

    A uuid that another member has announced is a conflict: it is granted to nobody until one of them is gone.
    One that the member sees twice names the member itself as who claims it.
    """

    member: str
    gpus: tuple[GpuRow, ...]

    def apply(self, txn: Txn) -> None:
        seen = {gpu.uuid: gpu for gpu in self.gpus}
        known = [row for row in txn.rows(GPUS).values() if self.member in (row.member, row.claimed_by)]
        gone = sorted((not row.parent, row.uuid) for row in known if row.uuid not in seen)
        for _, uuid in gone:  # cards after their parts, with the last of which a card may go
            if row := txn.find(GPUS, uuid):
                self._lose(txn, row)
        for uuid, gpu in sorted(seen.items(), key=lambda item: (item[1].parent, item[0])):  # cards first
            self._see(txn, gpu)
            if gpu.parent in seen and txn.get(GPUS, uuid).member == self.member:
                card = txn.get(GPUS, gpu.parent)
                txn.put(GPUS, card.uuid, replace(card, parts=tuple(sorted({*card.parts, uuid}))))

    def _lose(self, txn: Txn, row: GpuRow) -> None:
        if row.member != self.member:
            txn.put(GPUS, row.uuid, replace(row, claimed_by=""))
        elif row.holders or row.parts:
            txn.put(GPUS, row.uuid, replace(row, missing=True))
        else:
            forget(txn, row)

    def _see(self, txn: Txn, gpu: GpuRow) -> None:
        before = txn.find(GPUS, gpu.uuid)
        if before is None:
            card = txn.find(GPUS, gpu.parent)
            draining = card is not None and card.draining
            fresh = replace(gpu, member=self.member, holders=(), parts=(), draining=draining)
            txn.put(GPUS, gpu.uuid, fresh)
        elif before.member != self.member:
            txn.put(GPUS, gpu.uuid, replace(before, claimed_by=self.member))
        else:
            known = {field: getattr(before, field) for field in NOT_SEEN}
            others = "" if before.claimed_by == self.member else before.claimed_by
            txn.put(GPUS, gpu.uuid, replace(gpu, **known, claimed_by=gpu.claimed_by or others))


class DrainGpu(Command, frozen=True, tag="gpu.drain"):
    """Grant the GPU to nobody new (or, `draining` false, again). Its holders stay.

    With a card all its MIG devices are drained. One that had failed is watched before it is granted again.
    """

    uuid: str
    draining: bool

    def apply(self, txn: Txn) -> None:
        for row in (txn.get(GPUS, self.uuid), *parts_of(txn, self.uuid)):
            after = replace(row, draining=self.draining)
            if not self.draining and row.health in ("suspect", "failed"):
                after = replace(after, health="recovering", lasting="", boot="")
            txn.put(GPUS, row.uuid, after)


def parts_of(txn: Txn | State, uuid: str) -> list[GpuRow]:
    """The MIG devices of a card."""
    card = txn.find(GPUS, uuid)
    parts = [txn.get(GPUS, part) for part in (card.parts if card else ())]
    return sorted(parts, key=lambda row: (row.gi, row.ci))


def forget(txn: Txn, row: GpuRow) -> None:
    """Strike a card or part from the ledger; a missing card goes with the last part that was left of it."""
    txn.delete(GPUS, row.uuid)
    card = txn.find(GPUS, row.parent) if row.parent else None
    if card is None:
        return
    card = replace(card, parts=tuple(part for part in card.parts if part != row.uuid))
    txn.put(GPUS, card.uuid, card)
    if card.missing and not card.parts and not card.holders:
        txn.delete(GPUS, card.uuid)


def grant(
    txn: Txn,
    instance: str,
    member: str,
    grants: tuple[Grant, ...],
    *,
    started: bool,
    order: Order = UNQUEUED,
) -> None:
    """Record `instance` as holder of each GPU. Raises Conflict with the fact RACED, and changes nothing.

    A GPU this instance holds already for the same device, in the same way, is kept: granting is idempotent.
    `order`: its place in the queue, as what is kept for who is before it is not for it.
    """
    for wish in grants:
        row = txn.find(GPUS, wish.uuid)
        if row is None or row.member != member:
            raise Conflict(
                f"GPU {wish.uuid} is not on member {name_of(txn, member)}", gpu=wish.uuid, **{RACED: "gpu"}
            )
        others = tuple(h for h in row.holders if (h.instance, h.device) != (instance, wish.device))
        mine = next((h for h in row.holders if h not in others), None)
        if mine is None or (mine.sharing, mine.memory) != (wish.sharing, wish.memory):
            _check_free(txn, row, others, wish)
            _check_kept(txn, row, order)
        freed = max(row.freed, account(txn, row, mine)) if mine and wish.anew else row.freed
        since = mine.since if mine and not wish.anew else max(txn.now, freed)
        holder = Holder(instance, wish.device, wish.sharing, since, wish.memory, started)
        txn.put(GPUS, row.uuid, replace(row, holders=(*others, holder), freed=freed))


def _check_free(txn: Txn, row: GpuRow, others: tuple[Holder, ...], wish: Grant) -> None:
    why = ""
    card = txn.find(GPUS, row.parent) if row.parent else None
    if row.state in ("missing", "conflict", "draining", "partitioned") or row.health != "ok":
        why = f"is {row.state if row.health == 'ok' else row.health}"
    elif card and card.holders:
        why = f"is part of a GPU held whole by {card.holders[0].instance.removeprefix('default/')}"
    elif user := next((part.holders[0] for part in parts_of(txn, row.uuid) if part.holders), None):
        why = f"has a MIG device held by {user.instance.removeprefix('default/')}"
    elif others and "exclusive" in (wish.sharing, *(h.sharing for h in others)):
        why = f"is held by {others[0].instance.removeprefix('default/')} ({others[0].sharing})"
    elif wish.memory and sum(h.memory for h in others) + wish.memory > row.memory:
        why = "has too little memory left"
    if why:
        raise Conflict(f"GPU {row.uuid} on {name_of(txn, row.member)} {why}", gpu=row.uuid, **{RACED: "gpu"})


def _check_kept(txn: Txn, row: GpuRow, order: Order) -> None:
    kept = txn.find(GPUS_KEPT, row.uuid)
    if kept is not None and kept.order < order:
        raise Conflict(
            f"GPU {row.uuid} on {name_of(txn, row.member)} is kept for {kept.label}, first in the queue",
            gpu=row.uuid,
            **{RACED: "gpu"},
        )


def release(
    txn: Txn, instance: str, config: dict[str, str], devices: Collection[str] | None = None
) -> dict[str, str]:
    """Take `instance` off the GPUs of these devices, or of all; returns its config with LAST as the only
    note.
    """
    kept = dict(config)
    for device, uuids in granted(config).items():
        if devices is None or device in devices:
            for uuid in uuids:
                drop(txn, uuid, instance, device)
            for note in NOTES:
                kept.pop(f"volatile.{device}.{note}", None)
            kept[f"volatile.{device}.{LAST}"] = ",".join(uuids)
    return kept


def regrant(
    txn: Txn,
    instance: str,
    member: str,
    grants: tuple[Grant, ...],
    config: dict[str, str],
    *,
    started: bool,
    order: Order = UNQUEUED,
) -> dict[str, str]:
    """Make `instance` the holder of exactly these GPUs; returns its config with the new notes.

    Raises Conflict, with the fact RACED when another was faster.
    """
    wanted = {(wish.device, wish.uuid) for wish in grants}
    for device, uuids in granted(config).items():
        for uuid in uuids:
            if (device, uuid) not in wanted:
                drop(txn, uuid, instance, device)
    grant(txn, instance, member, grants, started=started, order=order)
    notes = volatile_of(grants)
    changed = {device for device, _ in wanted} | set(granted(config))
    stale = {
        f"volatile.{device}.{note}"
        for device in changed
        if (had := f"volatile.{device}.{HELD}") not in notes or notes[had] != config.get(had)
        for note in NOTES
    }
    return {key: value for key, value in config.items() if key not in stale} | notes


def drop(txn: Txn, uuid: str, instance: str, device: str) -> None:
    """Take one device of `instance` off a GPU; a missing GPU without holders leaves the ledger."""
    row = txn.find(GPUS, uuid)
    if row is None:
        return
    rest = tuple(h for h in row.holders if (h.instance, h.device) != (instance, device))
    freed = max([row.freed, *(account(txn, row, h) for h in row.holders if h not in rest)])
    if row.missing and not rest and not row.parts:
        forget(txn, row)
    else:
        txn.put(GPUS, uuid, replace(row, holders=rest, freed=freed))


def begin(txn: Txn, instance: str, config: dict[str, str]) -> None:
    """`instance` runs with the GPUs it was granted: they are not given back for want of a start any more."""
    for device, uuids in granted(config).items():
        for uuid in uuids:
            row = txn.find(GPUS, uuid)
            if row is not None:
                holders = tuple(
                    replace(h, started=True) if (h.instance, h.device) == (instance, device) else h
                    for h in row.holders
                )
                txn.put(GPUS, uuid, replace(row, holders=holders))


def rename_holder(txn: Txn, before: str, after: str, config: dict[str, str]) -> None:
    """What instance `before` (key) holds is now held by `after`."""
    for uuid in {uuid for uuids in granted(config).values() for uuid in uuids}:
        row = txn.find(GPUS, uuid)
        if row is not None:
            holders = tuple(replace(h, instance=after) if h.instance == before else h for h in row.holders)
            txn.put(GPUS, uuid, replace(row, holders=holders))
    move(txn, before, after)


def grants_held(state: Txn | State, instance: str, config: dict[str, str]) -> tuple[Grant, ...]:
    """What an instance holds now, as it would be granted again."""
    found = []
    for device, uuids in granted(config).items():
        for uuid in uuids:
            row = state.find(GPUS, uuid)
            for holder in row.holders if row else ():
                if (holder.instance, holder.device) == (instance, device):
                    found.append(Grant(device, uuid, holder.sharing, holder.memory))
    return tuple(found)


def volatile_of(grants: tuple[Grant, ...]) -> dict[str, str]:
    """The config keys that show what was granted: volatile.<device>.gpu.uuids."""
    by_device: dict[str, list[str]] = {}
    for wish in grants:
        by_device.setdefault(wish.device, []).append(wish.uuid)
    return {f"volatile.{device}.{HELD}": ",".join(sorted(uuids)) for device, uuids in by_device.items()}


def granted(config: dict[str, str], note: str = HELD) -> dict[str, tuple[str, ...]]:
    """Device to uuids, from an instance's volatile keys. Raises Invalid for an empty list, which is never
    written.
    """
    found = {}
    for key, value in config.items():
        if key.startswith("volatile.") and key.endswith(f".{note}"):
            if not value:
                raise Invalid(f"Empty list of GPUs: {key}", key=key)
            found[key.removeprefix("volatile.").removesuffix(f".{note}")] = tuple(value.split(","))
    return found


def preferred(config: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Device to uuids: what it holds, or held before its last stop."""
    return granted(config, LAST) | granted(config)


COMMANDS: tuple[type[Command], ...] = (ReportGpus, DrainGpu)
