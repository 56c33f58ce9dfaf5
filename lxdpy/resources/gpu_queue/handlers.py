"""/1.0/gpu-queue: who waits for GPUs, in order. Our own, behind the API extension `gpu_queue`.

To leave the queue, cancel the operation, whose id is that of the entry.
"""

from typing import Any

from aiohttp import web

from cluster.errors import NotFound
from cluster.state.txn import State
from lxdpy.resources.gpu_queue.breath import in_steps
from lxdpy.resources.gpu_queue.claims import Standing, standing, standings, wanted_by
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn, waiting
from lxdpy.resources.gpus.model import GPUS_KEPT
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.wire import rfc3339, url
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/gpu-queue")


@routes.on("GET", entitlement="can_view")
async def list_queue(call: Call[None]) -> web.Response:
    """Of the project, or of all that the caller sees. Positions are those in the whole queue."""
    matches = parse(call.filter)
    if not call.all_projects:
        call.state.get(PROJECTS, call.project)
    state = call.state
    turns = [turn for turn in waiting(state) if listed(call, turn)]
    places = await in_steps(standings(state, call.daemon.beat.online))
    shown = [row for turn in turns if matches(row := wire(state, turn, places[turn.id]))]
    return sync(shown if call.recursive else [url("gpu-queue", row["id"]) for row in shown])


@routes.on("GET", "/{id}", entitlement="can_view")
async def show_turn(call: Call[None]) -> web.Response:
    state = call.state
    turn = state.find(GPU_QUEUE, call.path("id"))
    if turn is None or turn.status != "waiting" or not call.identity.sees(turn.project):
        raise NotFound("GPU queue entry not found", id=call.path("id"))
    return sync(wire(state, turn, await in_steps(standing(state, call.daemon.beat.online, turn.id))))


def listed(call: AnyCall, turn: Turn) -> bool:
    return call.identity.sees(turn.project) if call.all_projects else turn.project == call.project


def wire(state: State, turn: Turn, place: Standing) -> dict[str, Any]:
    """`index` is the log's, at which all of it is true; `kept`: GPUs that nobody behind it may have."""
    kept = (uuid for uuid, row in state.rows(GPUS_KEPT).items() if row.turn == turn.id)
    return {
        "id": turn.id,
        "project": turn.project,
        "action": turn.action,
        "instances": [key.partition("/")[2] for key in turn.keys],
        "gpus": wanted_by(state, turn),
        "priority": turn.priority,
        "position": place.position,
        "reason": place.why,
        "kept": sorted(kept),
        "asked_at": rfc3339(turn.asked_at),
        "until": rfc3339(turn.until) if turn.until else "",
        "index": state.index,
    }
