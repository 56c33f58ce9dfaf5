"""POST /1.0/instances/<name>/gpu: park, unpark, renew. Our own, behind the API extension `gpu_park`.

An unpark may wait its turn in the queue for GPUs (`gpu_unpark_wait`).
"""

from typing import Literal

import msgspec
from aiohttp import web

from cluster.errors import Invalid
from lxdpy.config.instance import INSTANCE
from lxdpy.resources.gpu_queue import asking
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.instances.handlers import found, owner, resources
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.parking import actions
from lxdpy.resources.parking.commands import RenewLease
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/1.0/instances/{name}/gpu")


class ParkPost(msgspec.Struct):
    action: Literal["park", "unpark", "renew"]
    force: bool = False  # to park: end the programs that use the GPUs
    wait: str | None = None  # to unpark: for how long, as `gpu.wait`, which counts if it is not given


@routes.on("POST", body=ParkPost, entitlement="can_update_state", owner=owner)
async def change_gpus(call: Call[ParkPost]) -> web.Response:
    """Parking and unparking are operations; a lease is renewed at once."""
    row = found(call)
    if call.body.action == "renew":
        if not granted(row.config):
            raise Invalid("The instance holds no GPUs", instance=row.name)
        await call.store.propose(RenewLease(row.key))
        return sync()
    parks = call.body.action == "park"
    (actions.check_park if parks else actions.check_unpark)(call.daemon, row)

    if not parks and (turn := await asking.unpark(call.daemon, row, checked_wait(call.body.wait))):
        return asynchronous(Turns(call.daemon).view(call.daemon.state, turn, None), project=turn.project)

    async def run(_: Operation) -> None:
        if parks:
            await actions.park(call.daemon, row.key, force=call.body.force)
        else:
            await actions.unpark(call.daemon, row.key)

    description = "Parking GPUs" if parks else "Unparking GPUs"
    return asynchronous(call.daemon.operations.start(description, resources(row), run, project=row.project))


def checked_wait(wait: str | None) -> str | None:
    """Raises Invalid."""
    INSTANCE.check({} if wait is None else {"gpu.wait": wait})
    return wait
