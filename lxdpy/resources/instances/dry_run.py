"""What would become of a create: where it would go, or why nowhere. Changes nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.scheduler.explain import Explanation, explain
from cluster.scheduler.types import Ask, Hold, MemberView
from cluster.state.txn import State
from lxdpy.resources.instances.claims import views
from lxdpy.resources.instances.create import prepared
from lxdpy.resources.instances.model import InstancesPost
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
    limits = quota(state, project, draft.ask)
    return answer(found, limits) | {"policy": draft.policy, "index": state.index}


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


def quota(state: State, project: str, ask: Ask) -> dict[str, int]:
    """The project's limit of GPUs (-1: none), what it holds, what this would add at least."""
    return {
        "limit": limit_of(state.get(PROJECTS, project), "gpu"),
        "held": gpus_held(state, project),
        "wanted": sum(each.count or 1 for each in ask.gpus),
    }


def answer(found: Explanation, limits: dict[str, int]) -> dict[str, Any]:
    over = 0 <= limits["limit"] < limits["held"] + limits["wanted"] and limits["wanted"] > 0
    why_not = found.error.message if found.error else ""
    if over and not why_not:
        why_not = f"The project holds {limits['held']} of the {limits['limit']} GPUs it may have"
    placed = found.placement if not over else None
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
