"""What would become of a create: where it would go, or why nowhere. Changes nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.errors import Error
from cluster.membership.model import member_named
from cluster.scheduler.explain import Explanation, explain
from cluster.scheduler.queue import least
from cluster.scheduler.types import Ask, Hold, MemberView, Placement
from cluster.state.txn import Draft, State, Txn
from lxdpy.resources.instances.claims import grants_of, views
from lxdpy.resources.instances.commands import record
from lxdpy.resources.instances.create import Prepared, place_of, prepared
from lxdpy.resources.instances.model import InstancesPost
from lxdpy.resources.instances.origin import copies
from lxdpy.resources.projects.limits import gpus as gpus_held
from lxdpy.resources.projects.limits import limit_of
from lxdpy.resources.projects.model import PROJECTS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

replace = msgspec.structs.replace


def dry_run(
    daemon: "Daemon", body: InstancesPost, project: str, target: str, sees: Callable[[str], bool]
) -> dict[str, Any]:
    """The answer, with the log's index that it is true for; `sees` says of a project if it may be named.

    Raises as the create would for what is wrong with the request itself.
    """
    draft = prepared(daemon, body, project, target)
    state = daemon.state
    members = [masked(view, sees) for view in views(state, daemon.beat.online)]
    found = explain(draft.ask, members, draft.policy)
    there = place_of(state, draft, members) if found.placement else None
    limits = quota(state, project, draft.ask, there)
    refused = refusal(state, draft, there) if there else ""
    return answer(replace(found, placement=there), limits, refused) | {
        "policy": draft.policy,
        "index": state.index,
    }


def refusal(state: State, draft: Prepared, there: Placement) -> str:
    """Why the log would not have it there: recorded in a draft that nobody sees."""
    row, grants = draft.row, grants_of(draft.ask, there)
    trial = Txn(Draft(state, state.index), row.created_at, {})
    snapshots = copies(draft.origin, row.project, row.name)
    try:
        record(trial, replace(row, location=member_named(state, there.member).id), grants, snapshots)
    except Error as refused:
        return refused.message
    return ""


def masked(view: MemberView, sees: Callable[[str], bool]) -> MemberView:
    """Without the names of holders in other projects than those the caller sees."""

    def seen(hold: Hold) -> bool:
        return sees(hold.holder.partition("/")[0] if "/" in hold.holder else "default")

    if all(seen(hold) for gpu in view.gpus for hold in gpu.holders):
        return view
    another = "an instance of another project"
    gpus = (
        replace(gpu, holders=tuple(h if seen(h) else replace(h, holder=another) for h in gpu.holders))
        for gpu in view.gpus
    )
    return replace(view, gpus=tuple(gpus))


def quota(state: State, project: str, ask: Ask, there: Placement | None) -> dict[str, int]:
    """The project's limit of GPUs (-1: none), what it holds, what this would add: there, or at least."""
    gpus = there.gpus.values() if there else ()
    return {
        "limit": limit_of(state.get(PROJECTS, project), "gpu"),
        "held": gpus_held(state, project),
        "wanted": sum(map(len, gpus)) if there else least([ask]),
    }


def answer(found: Explanation, limits: dict[str, int], refused: str) -> dict[str, Any]:
    over = 0 <= limits["limit"] < limits["held"] + limits["wanted"] and limits["wanted"] > 0
    why_not = found.error.message if found.error else refused
    if over and not found.error:
        why_not = f"The project holds {limits['held']} of the {limits['limit']} GPUs it may have"
    placed = found.placement if not why_not else None
    return {
        "member": placed.member if placed else "",
        "gpus": {device: list(uuids) for device, uuids in placed.gpus.items()} if placed else {},
        "why_not": why_not,
        "quota": limits,
        "members": [
            {
                "name": member.name,
                "why_not": member.why_not,
                "gpus": [
                    {
                        "uuid": gpu.uuid,
                        "pci_address": gpu.pci,
                        "model": gpu.model,
                        "state": gpu.state,
                        "devices": gpu.devices,
                    }
                    for gpu in member.gpus
                ],
            }
            for member in found.members
        ],
    }
