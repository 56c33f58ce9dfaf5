"""/1.0/warnings."""

from typing import Any

from aiohttp import web

from cluster.errors import Forbidden, Invalid, NotFound
from cluster.membership.model import name_of
from cluster.state.txn import State
from lxdpy.resources.warnings.commands import DeleteWarning, MarkWarning
from lxdpy.resources.warnings.model import WARNINGS, WarningPut, WarningRow, warning_with
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/1.0/warnings")


@routes.on("GET")
async def list_warnings(call: Call[None]) -> web.Response:
    passes, project = parse(call.filter), call.query("project")
    rows = sorted(call.state.rows(WARNINGS).values(), key=lambda row: (row.first_seen, row.uuid))
    shown = [wire(call.state, row) for row in rows if not project or row.project == project]
    found = [one for one in shown if passes(one)]
    return sync(found if call.recursive else [f"/1.0/warnings/{one['uuid']}" for one in found])


@routes.on("GET", "/{uuid}")
async def show_warning(call: Call[None]) -> web.Response:
    return sync(wire(call.state, warning_with(call.state, call.path("uuid"))))


@routes.on("PUT", "/{uuid}", body=WarningPut)
@routes.on("PATCH", "/{uuid}", body=WarningPut)
async def mark_warning(call: Call[WarningPut]) -> web.Response:
    """That a cause has ended is found out, not told."""
    match call.body.status:
        case "new" | "acknowledged" as status:
            await call.store.propose(MarkWarning(call.path("uuid"), status))
        case "resolved" as status:
            raise Forbidden('Status may only be set to "acknowledge" or "new"', key="status", value=status)
        case status:
            raise Invalid(f'Unknown status {status!r}: "new" or "acknowledged"', key="status", value=status)
    return sync()


@routes.on("DELETE", "/")
async def delete_none(call: Call[None]) -> web.Response:
    """What LXD's client sends both for all of a remote's warnings and for one that it forgot to name."""
    raise NotFound("No warning was named: this client cannot delete all of them at once", key="uuid")


@routes.on("DELETE", "/{uuid}")
async def delete_warning(call: Call[None]) -> web.Response:
    await call.store.propose(DeleteWarning(call.path("uuid")))
    return sync()


def wire(state: State, row: WarningRow) -> dict[str, Any]:
    return {
        "status": row.status,
        "uuid": row.uuid,
        "location": name_of(state, row.member),
        "project": row.project,
        "type": row.type,
        "count": row.count,
        "first_seen_at": rfc3339(row.first_seen),
        "last_seen_at": rfc3339(row.last_seen),
        "last_message": row.message,
        "severity": row.severity,
        "entity_url": row.entity,
    }
