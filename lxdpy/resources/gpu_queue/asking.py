"""Requests that may wait for GPUs, or are for several instances: tried at once, or put into the queue.

Who may wait (`gpu.wait`) does not pass those that do already: while anybody is in the queue it goes there
too, and is served at once if there are GPUs that are not kept for another.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cluster.errors import Exhausted, Forbidden, Invalid
from cluster.ids import operation_id
from cluster.membership.model import MEMBERS
from cluster.scheduler.place import GpuHeld
from cluster.scheduler.queue import Waiter, able, least, possible, together
from cluster.state.command import CALLER
from cluster.state.txn import Draft, State, Txn
from lxdpy.config.instance import INSTANCE
from lxdpy.resources.gpu_queue.claims import (
    allowance,
    members_of,
    placed_rows,
    waiter_of,
    wanted_of,
)
from lxdpy.resources.gpu_queue.commands import CreateMany, JoinQueue, check_due
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn, waiting
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances.claims import ask_of, grants_of, views
from lxdpy.resources.instances.commands import CreateInstance, record
from lxdpy.resources.instances.create import TRIES, Prepared, placed, prepared, recorded
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import Instance, InstancesPost
from lxdpy.resources.instances.origin import copies
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.projects.limits import limit_of
from lxdpy.resources.projects.model import PROJECTS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

replace = msgspec.structs.replace
Made = TypeVar("Made")
MOST = 256  # instances of one request: their rows are one entry of the log
FULL = (Exhausted, GpuHeld)  # what a placement raises for want of free GPUs


async def create(
    daemon: "Daemon", body: InstancesPost, project: str, target: str, count: int | None
) -> Instance | Turn:
    """The row that its owner builds now, or the turn of what waits or is for `count` instances.

    Raises what a create raises.
    """
    if count is None:
        draft = prepared(daemon, body, project, target)
        return await _one(daemon, draft)
    if not body.name:
        raise Invalid("Several instances need a name to be numbered from", key="name")
    drafts = []
    for number in range(1, count + 1):
        named = replace(body, name=f"{body.name}-{number}")
        drafts.append(prepared(daemon, named, project, target))
    return await _group(daemon, drafts)


def count_of(text: str) -> int | None:
    """Of `?count=`. Raises Invalid."""
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise Invalid(f'Invalid value for count: "{text}" is not a number from 1 to {MOST}', key="count")
    return int(text)


async def _one(daemon: "Daemon", draft: Prepared) -> Instance | Turn:
    if not may_wait(draft):
        return await recorded(daemon, draft)
    return await _at_once_or_later(daemon, _turn_of(daemon, [draft]), lambda: recorded(daemon, draft))


async def _group(daemon: "Daemon", drafts: list[Prepared]) -> Turn:
    """All or none, in one entry of the log."""
    turn = _turn_of(daemon, drafts)
    if not may_wait(drafts[0]):
        return await _granted(daemon, turn)
    return await _at_once_or_later(daemon, turn, lambda: _granted(daemon, turn))


def may_wait(draft: Prepared) -> bool:
    return bool(draft.ask.gpus) and wait_of(draft.config) is not None


def coming(daemon: "Daemon", draft: Prepared) -> CreateInstance:
    """`create.placed`, of one whose files are brought: from another server, by a backup.

    It ends up stopped, so who may wait for GPUs does so when it starts: if there are none for it now it comes
    without, to a member that may have them one day. Whoever brings the files does not wait.
    """
    turn = _turn_of(daemon, [draft])
    if not may_wait(draft) or not (waiting(daemon.state) or _is_over(daemon.state, turn)):
        try:
            return placed(daemon, draft)
        except FULL:
            if not may_wait(draft):
                raise
    names = able(draft.ask, members_of(daemon.state, daemon.beat.online))
    if not names:
        return placed(daemon, draft)  # which says why
    ask = replace(draft.ask, gpus=(), only={**draft.ask.only, "such GPUs": names})
    return placed(daemon, draft._replace(ask=ask))


async def _at_once_or_later(
    daemon: "Daemon", turn: Turn, attempt: Callable[[], Awaitable[Made]]
) -> Made | Turn:
    if not waiting(daemon.state) and not _is_over(daemon.state, turn):
        try:
            return await attempt()
        except FULL as refused:
            log.info("%s waits for GPUs: %s", turn.label, refused.message)
        except Forbidden:
            if not _is_over(daemon.state, turn):
                raise
    return await _join(daemon, turn)


async def _granted(daemon: "Daemon", turn: Turn) -> Turn:
    async def attempt() -> Turn:
        state = daemon.state
        waiter = waiter_of(state, turn)
        found = together(waiter.asks, views(state, daemon.beat.online), waiter.policy)
        grants = tuple(grants_of(ask, placed) for ask, placed in zip(waiter.asks, found, strict=True))
        command = CreateMany(replace(turn, instances=placed_rows(state, turn, found)), grants)
        state = await daemon.store.propose(command)
        return state.find(GPU_QUEUE, turn.id) or command.turn

    return await unless_raced(attempt, TRIES, "each time places were found")


def _turn_of(daemon: "Daemon", drafts: list[Prepared]) -> Turn:
    first = drafts[0]
    alone = len(drafts) == 1
    return _timed(
        Turn(
            operation_id(daemon.member_id),
            first.row.project,
            instances=tuple(draft.row for draft in drafts),
            snapshots=copies(first.origin, first.row.project, first.row.name) if alone else (),
            target=first.target,
        ),
        first.config,
    )


def _timed(turn: Turn, config: Config) -> Turn:
    now, wait = time.time(), wait_of(config)
    return replace(
        turn,
        priority=int(config.get("gpu.priority") or 0),
        asked_at=now,
        until=now + wait if wait is not None and wait >= 0 else 0.0,
        by=CALLER.get() or {},
    )


def wait_of(config: Config) -> float | None:
    """Seconds, -1 for ever; None: not at all."""
    wait = INSTANCE.parsed(config, "gpu.wait")
    return float(wait) if isinstance(wait, int | float) and wait != 0 else None


def _is_over(state: State, turn: Turn) -> bool:
    """Whether its project holds too many GPUs, as things stand."""
    wanted = least(waiter_of(state, turn).asks)
    return wanted > allowance(state).get(turn.project, wanted)


async def _join(daemon: "Daemon", turn: Turn) -> Turn:
    """Wait. Raises at once what would be refused at its turn as well, whatever comes free."""
    state = daemon.state
    waiter = waiter_of(state, turn)
    most, wanted = limit_of(state.get(PROJECTS, turn.project), "gpu"), least(waiter.asks)
    if 0 <= most < wanted:
        raise Forbidden(
            f'Project "{turn.project}" may hold {most} GPUs ("limits.gpu"), {wanted} are wanted',
            key="limits.gpu",
        )
    if not possible(waiter, members_of(state, daemon.beat.online)):
        together(waiter.asks, views(state, daemon.beat.online), waiter.policy)
    rehearse(state, turn, waiter)
    state = await daemon.store.propose(JoinQueue(turn))
    return state.find(GPU_QUEUE, turn.id) or turn


def rehearse(state: State, turn: Turn, waiter: Waiter) -> None:
    """Record its instances in a draft that nobody sees, but without GPUs. Raises what a create raises."""
    ready = [row for row in state.rows(MEMBERS).values() if row.status == "ready"]
    trial = Txn(Draft(state, state.index), turn.asked_at, {})
    for row, ask in zip(turn.instances, waiter.asks, strict=False):
        home = next((m for m in ready if all(m.name in names for names in ask.only.values())), None)
        if home is not None:
            record(trial, replace(row, location=home.id), (), turn.snapshots)


async def start(daemon: "Daemon", row: Instance) -> Turn | None:
    """The turn of a start that may wait; None of one that does not, or has its GPUs already.

    Raises Invalid, Conflict.
    """
    config, devices = expanded(daemon.state, row)
    wait = wait_of(config)
    if wait is None or granted(row.config) or row.status not in ("Stopped", "Error"):
        return None
    if not ask_of(config, devices, row.architecture).gpus:
        return None
    check_due(daemon.state, row.key)
    turn = _timed(Turn(operation_id(daemon.member_id), row.project, start=row.key), config)
    return await _join(daemon, turn)


async def unpark(daemon: "Daemon", row: Instance, wait: str | None = None) -> Turn | None:
    """As `start`, of a parked instance that is to have GPUs again; `wait` is for `gpu.wait` if it is given.

    Raises Invalid, Conflict.
    """
    config = wanted_of(daemon.state, row)[0]
    config = config if wait is None else {**config, "gpu.wait": wait}
    if wait_of(config) is None:
        return None
    check_due(daemon.state, row.key, unparks=True)
    asked = Turn(operation_id(daemon.member_id), row.project, start=row.key, unparks=True)
    return await _join(daemon, _timed(asked, config))
