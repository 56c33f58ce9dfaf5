"""PURE: between the queue's rows and the scheduler: who waits, what is granted, what the log is told."""

from collections.abc import Callable

import msgspec

from cluster.errors import Error, NotFound
from cluster.membership.model import GROUPS, MEMBERS, member_named, name_of
from cluster.scheduler.queue import Plan, Waiter, Work, least, planning
from cluster.scheduler.types import Ask, MemberView, Placement
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.resources.gpu_queue.commands import GrantTurn, KeepGpus, LeaveQueue, check_fit
from lxdpy.resources.gpu_queue.model import Turn, waiting
from lxdpy.resources.gpus.commands import preferred
from lxdpy.resources.gpus.model import GPUS_KEPT
from lxdpy.resources.instances.claims import ask_of, grants_of, policy_of, views
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.parking.commands import without
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.limits import gpus, limit_of
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.storage_volumes.disks import members_with

replace = msgspec.structs.replace
ANOTHER = "another instance"
MOVING = "instance to start: it is being moved"


class Standing(msgspec.Struct, frozen=True):
    """One that waits: its place in the queue, from 1, and why it is not served."""

    position: int
    why: str


def waiter_of(state: State, turn: Turn) -> Waiter:
    """Raises NotFound when the instance that is to be started is gone, or the member or group that was asked
    for; Invalid for a bad GPU device.
    """
    policy = policy_of(state, {}, None)
    asks = []
    for row in rows_of(state, turn):
        config, devices = wanted_of(state, row)
        group = state.get(GROUPS, turn.target[1:]).name if turn.target[:1] == "@" else None
        member = member_named(state, turn.target).name if turn.target and not group else None
        policy = policy_of(state, config, group)
        ask = ask_of(config, devices, row.architecture, target=member, group=group)
        if turn.start:
            had = preferred(row.config)
            prefer = tuple(replace(gpu, prefer=had.get(gpu.device, ())) for gpu in ask.gpus)
            only = {MOVING: ()} if row.move else ask.only
            ask = replace(ask, target=name_of(state, row.location), gpus=prefer, only=only)
        else:
            ask = replace(ask, only=members_with(state, turn.project, devices))
        asks.append(ask)
    kept = tuple(sorted(uuid for uuid, row in state.rows(GPUS_KEPT).items() if row.turn == turn.id))
    return Waiter(
        id=turn.id,
        asks=tuple(asks),
        label=turn.label,
        policy=policy,
        project=turn.project,
        priority=turn.priority,
        since=turn.since,
        keeps=kept,
    )


def wanted_of(state: State, row: Instance) -> tuple[Config, Devices]:
    """Expanded, with the GPUs that it has given back for a while."""
    return expanded(state, replace(row, config=without(row.config, PARKED)))


def wanted_by(state: State, turn: Turn) -> int:
    """How many GPUs it takes at the least; none, if it is about to be told that it can never be served."""
    try:
        return least(waiter_of(state, turn).asks)
    except Error:
        return 0


def rows_of(state: State, turn: Turn) -> tuple[Instance, ...]:
    """The instances that it is for. Raises NotFound."""
    if not turn.start:
        return turn.instances
    row = state.find(INSTANCES, turn.start)
    if row is None:
        raise NotFound("The instance is gone")
    return (row,)


def members_of(state: State, online: Callable[[str], bool]) -> list[MemberView]:
    """As those see them for whom GPUs may be kept: what is kept is not marked."""
    return views(state, online, kept=False)


def allowance(state: State) -> dict[str, int]:
    """How many GPUs more each project that has a limit may hold."""
    limits = {name: limit_of(row, "gpu") for name, row in state.rows(PROJECTS).items()}
    return {name: most - gpus(state, name) for name, most in limits.items() if most >= 0}


def planned(state: State, online: Callable[[str], bool]) -> Work[tuple[Plan, dict[str, str]]]:
    """What is to be done as things stand; and who can never be served, with the reason, by id.

    Reasons name no holders where there are several projects: who waits may not know of the others.
    """
    waiters, lost = [], {}
    several = len(state.rows(PROJECTS)) > 1
    for turn in waiting(state):
        try:
            if turn.start and (row := rows_of(state, turn)[0]).move is None:
                check_fit(row, unparks=turn.unparks)
            waiter = waiter_of(state, turn)
            waiters.append(replace(waiter, label=ANOTHER) if several else waiter)
        except Error as wrong:
            lost[turn.id] = wrong.message
        yield
    members = members_of(state, online)
    found = yield from planning(waiters, members, allowance(state), nameless if several else same)
    return found, lost


def same(member: MemberView) -> MemberView:
    return member


def nameless(member: MemberView) -> MemberView:
    gpus = (
        replace(gpu, holders=tuple(replace(hold, holder=ANOTHER) for hold in gpu.holders))
        for gpu in member.gpus
    )
    return replace(member, gpus=tuple(gpus))


def standings(state: State, online: Callable[[str], bool]) -> Work[dict[str, Standing]]:
    """Of all that wait, by id."""
    turns, shown = waiting(state), {}
    if turns:
        found, lost = yield from planned(state, online)
        for number, turn in enumerate(turns, 1):
            yield
            shown[turn.id] = Standing(number, _why(turn.id, found, lost))
    return shown


def standing(state: State, online: Callable[[str], bool], id: str) -> Work[Standing]:
    """Of one that waits."""
    found, lost = yield from planned(state, online)
    number = next(number for number, turn in enumerate(waiting(state), 1) if turn.id == id)
    return Standing(number, _why(id, found, lost))


def _why(id: str, found: Plan, lost: dict[str, str]) -> str:
    if id in found.grants:
        return "It is served now"
    return lost.get(id) or found.why[id]


def steps(state: State, online: Callable[[str], bool], now: float) -> Work[list[Command]]:
    """What the leader is to propose, in this order; nothing if all is as it should be."""
    turns = {turn.id: turn for turn in waiting(state)}
    found, lost = yield from planned(state, online)
    commands: list[Command] = [LeaveQueue(id, why) for id, why in lost.items()]
    kept = tuple(sorted(state.rows(GPUS_KEPT)))
    keepers = {row.turn for row in state.rows(GPUS_KEPT).values()}
    labels = {row.label for row in state.rows(GPUS_KEPT).values()}  # it may have been renamed
    if found.head and (kept != found.kept or keepers != {found.head} or labels != {turns[found.head].label}):
        commands.append(KeepGpus(found.head, found.kept))
    elif not found.head and kept and not keepers & found.grants.keys():
        commands.append(KeepGpus(min(keepers)))
    commands += [grant_of(state, turns[id], found.grants[id]) for id in found.grants]
    for id, turn in turns.items():
        if 0 < turn.until <= now and id not in found.grants and id not in lost:
            yield
            commands.append(LeaveQueue(id, f"No GPUs came free in time: {found.why[id]}"))
    return commands


def grant_of(state: State, turn: Turn, placements: tuple[Placement, ...]) -> GrantTurn:
    asks: tuple[Ask, ...] = waiter_of(state, turn).asks
    grants = tuple(grants_of(ask, placed) for ask, placed in zip(asks, placements, strict=True))
    return GrantTurn(turn.id, grants, () if turn.start else placed_rows(state, turn, placements))


def placed_rows(state: State, turn: Turn, placements: tuple[Placement, ...]) -> tuple[Instance, ...]:
    """With the member of each. A single one is built under the id that the client knows."""
    rows = []
    for row, placement in zip(turn.instances, placements, strict=True):
        owner = member_named(state, placement.member)
        operation = turn.id if len(turn.instances) == 1 else row.uuid[:-12] + owner.id
        rows.append(
            replace(
                row,
                location=owner.id,
                operation=operation,
                architecture=row.architecture or state.get(MEMBERS, owner.id).architecture or "x86_64",
            )
        )
    return tuple(rows)
