"""What a member does for the GPU ledger: it reports its own cards, and gives back grants nobody used."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.errors import Error
from cluster.membership.model import MEMBERS
from cluster.state.txn import State
from lxdpy.host.gpu.facts import Mig
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.gpu.health import Verdict
from lxdpy.host.gpu.inventory import Gpu, discover
from lxdpy.host.paths import HostRoot
from lxdpy.host.uevents import Uevents
from lxdpy.resources.gpu_queue.model import GPU_QUEUE
from lxdpy.resources.gpus.commands import ReportGpus
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.gpus.vigil import Vigil, policy_of
from lxdpy.resources.instances.commands import ReleaseGrants
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0  # seconds; a look takes 1 to 5 ms, with NVML 30
SUBSYSTEMS = frozenset({"drm", "pci", "nvidia", "module", "kfd"})  # in which a card is told of
SOON = 0.5  # seconds; who has just joined shall not have to wait for its GPUs
START_WITHIN = 60.0  # seconds from a create to its start, after which its GPUs are free again
UNSEEN: dict[str, Any] = {"holders": (), "freed": 0.0, "parts": (), "draining": False}
"""What a report does not tell of a card, but the ledger knows."""


class GpuWatch:
    """Looks at the cards of this host, and at this member's grants, for as long as it runs.

    `member_root` is where the cards are looked for: with `fake`, that one's own tree. `host_id` names cards
    that have no id of their own; unlike the member's id it stays the same when this host joins a cluster.
    """

    def __init__(
        self, daemon: "Daemon", member_root: HostRoot, fake: FakeGpus | None, host_id: str = ""
    ) -> None:
        self._daemon = daemon
        self._root = member_root
        self._fake = fake
        self._host_id = host_id
        self._vigil = Vigil(member_root)
        self._ear: Uevents | None = None
        self._said = ""  # the last failure, so that a lasting one is logged once
        self.cards: Sequence[Gpu] = ()  # as they were seen last
        self.on_look: list[Callable[[Sequence[Gpu]], object]] = []  # told of each look at the cards
        self._told_as = ""  # the member id under which the ledger is known to be right

    async def run(self) -> None:
        """Until cancelled. What fails is tried again at the next look."""
        if self._fake is None:
            self._ear = Uevents(SUBSYSTEMS)
        self._vigil.faults.start()
        try:
            while True:
                await self._look_around()
                await self._pause()
        finally:
            self._vigil.faults.stop()

    async def _look_around(self) -> None:
        try:
            await self.report()
            await self.release()
            self._said = ""
        except (Error, OSError) as failure:  # a file that goes while it is read, say
            if str(failure) != self._said:
                log.warning("GPUs: %s", failure)
            self._said = str(failure)

    async def _pause(self) -> None:
        """Until it is worth looking again: cards change seldom, but joining makes this another member."""
        end = time.monotonic() + LOOK_EVERY
        while time.monotonic() < end:
            await asyncio.sleep(min(SOON, LOOK_EVERY))
            if self._told_as != self._daemon.member_id:
                return
            if (self._fake and self._fake.changed()) or (self._ear and self._ear.pending()):
                return
            if self._vigil.faults.pending():
                return

    async def report(self) -> None:
        """Bring the ledger in line with the cards and members there are. Proposes nothing when it is."""
        me = self._daemon.member_id
        cards = await asyncio.to_thread(self._look, me)
        self.cards = cards
        for callback in self.on_look:
            callback(cards)
        state = self._daemon.state
        # A member that has just joined does not know its own row yet; nor does one that was removed.
        if me != self._daemon.member_id or state.find(MEMBERS, me) is None:
            return
        for gone in orphaned(state):
            # Removed members see nothing any more. If its host has joined anew, these cards are its own.
            state = await self._daemon.store.propose(ReportGpus(gone, ()))
        known = state.rows(GPUS)
        rows = rows_of(cards, me, known, self._vigil.look(cards, known, policy_of(state)))
        if differs(state, me, rows):
            log.info("this host has %d GPUs: %s", len(cards), ", ".join(gpu.uuid for gpu in cards))
            await self._daemon.store.propose(ReportGpus(me, rows))
        self._vigil.told()
        self._told_as = me

    async def release(self) -> None:
        """Give back the GPUs of this member's instances that are stopped and have no claim to them any more.

        Not before it knows what the cluster has agreed on: who was granted them may have started since, or
        is about to.
        """
        if not self._daemon.current:
            return
        for key in overdue(self._daemon.state, self._daemon.member_id, time.time()):
            lock = self._daemon.lock(f"instance {key}")
            if lock.locked():
                continue  # it is being started just now, or deleted
            async with lock:
                if key in overdue(self._daemon.state, self._daemon.member_id, time.time()):
                    log.info("instance %s is stopped: its GPUs are free again", key)
                    await self._daemon.store.propose(ReleaseGrants(key))

    def _look(self, member: str) -> tuple[Gpu, ...]:
        if self._fake is not None:
            self._fake.refresh()
        return discover(self._root, self._host_id or member)


def rows_of(
    cards: Iterable[Gpu], member: str, known: Mapping[str, GpuRow], verdicts: Mapping[str, Verdict]
) -> tuple[GpuRow, ...]:
    """What the ledger is to say of these cards and their MIG devices.

    A card that is lost tells nothing of itself: what is known of it stays. Of two that say they are the same,
    one stands for both, as a conflict.
    """
    rows: dict[str, GpuRow] = {}
    for gpu in cards:
        before = known.get(gpu.uuid)
        verdict = verdicts[gpu.uuid]
        lost = gpu.signs.lost and before is not None and before.member == member
        for row in _still_there(before, known) if lost and before else _rows(gpu, member):
            row = msgspec.structs.replace(
                row,
                health=verdict.health,
                reason=verdict.reason,
                lasting=verdict.lasting,
                boot=verdict.boot,
                claimed_by=member if row.uuid in rows else "",
                missing=False,
                **UNSEEN,
            )
            rows[row.uuid] = row
    return tuple(rows.values())


def _still_there(card: GpuRow, known: Mapping[str, GpuRow]) -> list[GpuRow]:
    return [card, *(row for row in known.values() if row.parent == card.uuid)]


def _rows(gpu: Gpu, member: str) -> list[GpuRow]:
    card = GpuRow(
        uuid=gpu.uuid,
        member=member,
        vendor=gpu.vendor,
        model=gpu.model,
        memory=gpu.memory,
        driver=gpu.driver,
        driver_version=gpu.driver_version,
        pci_address=gpu.pci_address,
        vendor_id=gpu.vendor_id,
        product_id=gpu.product_id,
        drm_id=gpu.drm_id,
        numa_node=gpu.numa_node,
        links=gpu.links,
        partitioned=gpu.cut,
        cdi=gpu.cdi,
    )
    return [card, *(_part(card, part) for part in gpu.mig)]


def _part(card: GpuRow, part: Mig) -> GpuRow:
    return msgspec.structs.replace(
        card,
        uuid=part.uuid,
        model=f"{card.model} MIG {part.profile}".rstrip(),
        memory=part.memory,
        links={},
        partitioned=False,
        parent=card.uuid,
        profile=part.profile,
        gi=part.gi,
        ci=part.ci,
        cdi=part.cdi,
    )


def orphaned(state: State) -> list[str]:
    """Ids of removed members that the ledger still counts cards, or claims, of. Sorted.

    Not of cards that an instance holds and that are known to be missing: they go with their last holder.
    """
    known = state.rows(MEMBERS)
    owners = {row.member for row in state.rows(GPUS).values() if not (row.missing and row.holders)}
    claimants = {row.claimed_by for row in state.rows(GPUS).values() if row.claimed_by}
    return sorted(member for member in owners | claimants if member not in known)


def differs(state: State, member: str, rows: tuple[GpuRow, ...]) -> bool:
    """Whether reporting `rows` would change the ledger.

    A card that another member announced first is a conflict once, however many claim it: reporting it again
    would only make the claimants take turns.
    """
    seen = {row.uuid: row for row in rows}
    known = state.rows(GPUS)
    for row in known.values():
        gone = row.uuid not in seen
        if gone and ((row.member == member and not row.missing) or row.claimed_by == member):
            return True
    return any(not _told(known.get(row.uuid), row) for row in rows)


def _told(known: GpuRow | None, seen: GpuRow) -> bool:
    if known is None:
        return False
    if known.member != seen.member:
        return known.claimed_by != ""
    claimed_by = known.claimed_by if known.claimed_by == known.member else ""
    return msgspec.structs.replace(known, claimed_by=claimed_by, **UNSEEN) == seen


def overdue(state: State, member: str, now: float) -> list[str]:
    """Keys of the member's stopped instances whose GPUs were granted by a create too long ago, sorted.

    Also of those that ran with them, and were to keep them until their `gpu.hold` was changed. Not of those
    that the queue has granted theirs to: a start follows, however late.
    """
    due = {turn.start for turn in state.rows(GPU_QUEUE).values() if turn.status == "granted"}
    late = {
        holder.instance
        for gpu in state.rows(GPUS).values()
        if gpu.member == member
        for holder in gpu.holders
        if holder.started or holder.since + START_WITHIN < now
    }
    return [key for key in sorted(late - due) if _idle(state, key, member)]


def _idle(state: State, key: str, member: str) -> bool:
    row = state.find(INSTANCES, key)
    if row is None or row.location != member or row.status not in ("Stopped", "Error"):
        return False
    return expanded(state, row)[0].get("gpu.hold") != "always"
