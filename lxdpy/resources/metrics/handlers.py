"""/1.0/metrics: of the member that is asked, as with LXD: Prometheus is told of each member.

Who has a certificate for some projects only sees their instances, and nothing of the daemon.
"""

import asyncio

from aiohttp import web
from prometheus_client.process_collector import ProcessCollector

from cluster.errors import Forbidden
from lxdpy.config.server import SERVER
from lxdpy.resources.gpus import metrics as gpus
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.metrics import instances, server
from lxdpy.resources.metrics.families import Families, text_of
from lxdpy.resources.server.model import setting
from lxdpy.rest.auth import permits
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
AUTHENTICATION = "core.metrics_authentication"
_process = ProcessCollector(namespace="lxdpy", registry=None)


@routes.on("GET", entitlement="can_view_metrics", untrusted=True)
async def show_metrics(call: Call[None]) -> web.Response:
    identity = call.identity
    if not permits(identity, "can_view_metrics", "", call.request.path) and needs_certificate(call):
        raise Forbidden("not authorized")
    daemon, wanted, families = call.daemon, call.query("project"), Families()
    rows = [
        row
        for _, row in sorted(call.state.rows(INSTANCES).items())
        if row.location == daemon.member_id
        and (not wanted or row.project == wanted)
        and (identity.projects is None or row.project in identity.projects)
    ]
    async with daemon.lock("metrics"):  # however many ask, one look after the other
        await instances.measure(daemon, rows, families)
        if identity.projects is None:
            server.measure(daemon, families)
            gpus.measure(daemon, families)
        process = () if identity.projects is not None else _process.collect()
        body = await asyncio.to_thread(text_of, families.metrics(), process)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def needs_certificate(call: AnyCall) -> bool:
    return bool(SERVER.parsed({AUTHENTICATION: setting(call.state, AUTHENTICATION)}, AUTHENTICATION))
