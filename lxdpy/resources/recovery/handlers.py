"""/internal/recover: for `lxdpy recover` on the member itself."""

from aiohttp import web

from cluster.errors import Forbidden
from lxdpy.resources.recovery import actions
from lxdpy.resources.recovery.model import RecoverPost, Validated
from lxdpy.resources.recovery.plan import Plan
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/internal/recover")


@routes.on("POST", "/validate", body=RecoverPost, internal=True)
async def validate(call: Call[RecoverPost]) -> web.Response:
    check_local(call)
    return sync(shown(await actions.validate(call.daemon, call.body.pools or ())))


@routes.on("POST", "/import", body=RecoverPost, internal=True)
async def recover(call: Call[RecoverPost]) -> web.Response:
    check_local(call)
    return sync(shown(await actions.run(call.daemon, call.body.pools or ())))


def check_local(call: AnyCall) -> None:
    """What the disks hold is believed from who has this host. Raises Forbidden for members."""
    if call.identity.protocol != "unix":
        raise Forbidden("not authorized")


def shown(plan: Plan) -> Validated:
    return Validated(plan.unknown, plan.errors)
