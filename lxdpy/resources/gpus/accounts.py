"""/1.0/gpu-usage: GPU-seconds by project and instance. Our own, behind the API extension `gpu_ledger`."""

import time
from typing import Any

from aiohttp import web

from lxdpy.resources.gpus.usage import WAYS, Usage, add, holds, used
from lxdpy.resources.projects.limits import limit_of
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/1.0/gpu-usage")


@routes.on("GET", entitlement="can_view")
async def show_usage(call: Call[None]) -> web.Response:
    """Of all projects that the caller sees, until now; `index` is the log's that it is true for.

    A filter is over instances; projects are counted whole.
    """
    matches = parse(call.filter)
    found = used(call.state, time.time())
    mine = {key: usage for key, usage in found.items() if call.identity.sees(key.partition("/")[0])}
    held: dict[str, int] = {}
    for _, holder in holds(call.state):
        held[holder.instance] = held.get(holder.instance, 0) + 1
    instances = [shown(key, usage, held.get(key, 0)) for key, usage in sorted(mine.items())]
    return sync(
        {
            "projects": projects(call, mine, held),
            "instances": [one for one in instances if matches(one)],
            "index": call.state.index,
        }
    )


def projects(call: Call[None], mine: dict[str, Usage], held: dict[str, int]) -> list[dict[str, Any]]:
    """Those there are, and those that used something and are gone."""
    rows = call.state.rows(PROJECTS)
    names = {name for name in rows if call.identity.sees(name)} | {key.partition("/")[0] for key in mine}
    found = []
    for name in sorted(names):
        total = Usage()
        for key, usage in mine.items():
            if key.partition("/")[0] == name:
                for way in WAYS:
                    total = add(total, way, getattr(usage, way))
        holding = sum(number for key, number in held.items() if key.partition("/")[0] == name)
        limit = limit_of(rows[name], "gpu") if name in rows else -1
        found.append({"name": name, "held": holding, "limit": limit, **seconds(total)})
    return found


def shown(key: str, usage: Usage, held: int) -> dict[str, Any]:
    project, _, name = key.partition("/")
    until = rfc3339(usage.until)
    return {"project": project, "instance": name, "held": held, "until": until, **seconds(usage)}


def seconds(usage: Usage) -> dict[str, float]:
    return {f"{way}_seconds": round(getattr(usage, way), 3) for way in WAYS}
