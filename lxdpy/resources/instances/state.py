"""/1.0/instances/<name>/state, and the bulk change of PUT /1.0/instances."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from cluster.errors import Error, Forbidden, Invalid
from cluster.membership.model import MEMBERS
from lxdpy.resources.gpu_queue import asking
from lxdpy.resources.gpu_queue.model import Turn
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.instances import boot, power
from lxdpy.resources.instances.handlers import found, owner, resources, visible
from lxdpy.resources.instances.model import Instance, InstanceStatePut
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/instances")

Act = Callable[[str], Awaitable[None]]

ENDS_WITHIN = 600  # seconds that a change of all waits for each
DESCRIPTIONS = {
    "start": "Starting instance",
    "stop": "Stopping instance",
    "restart": "Restarting instance",
    "freeze": "Freezing instance",
    "unfreeze": "Unfreezing instance",
}


class BulkPut(msgspec.Struct):
    state: InstanceStatePut


@routes.on("GET", "/{name}/state", entitlement="can_view", owner=owner)
async def show_state(call: Call[None]) -> web.Response:
    row = found(call)
    await call.daemon.states.live([row])
    return sync(call.daemon.states.shown(row))


@routes.on("PUT", "/{name}/state", body=InstanceStatePut, entitlement="can_update_state", owner=owner)
async def change_state(call: Call[InstanceStatePut]) -> web.Response:
    row = found(call)
    begun = await begin(call, row, call.body)
    if isinstance(begun, Turn):
        return asynchronous(Turns(call.daemon).view(call.daemon.state, begun, None), project=begun.project)
    return asynchronous(begun)


async def begin(call: AnyCall, row: Instance, put: InstanceStatePut) -> Operation | Turn:
    """Change the state of an instance of this member; or it waits for GPUs to be started with."""
    act = act_of(call, put)
    if call.state.get(MEMBERS, row.location).status == "evacuated" and put.action != "stop":
        raise Forbidden("Cluster member is evacuated")
    turn = await asking.start(call.daemon, row) if put.action == "start" else None
    if turn is not None:
        return turn

    async def run(_: Operation) -> None:
        await act(row.key)

    return call.daemon.operations.start(DESCRIPTIONS[put.action], resources(row), run, project=row.project)


@routes.on("PUT", body=BulkPut, entitlement="can_update_state")
async def change_all(call: Call[BulkPut]) -> web.Response:
    """Every instance of the project that is not so already, wherever it lives."""
    put = call.body.state
    act_of(call, put)
    wanted = {"start": ("Stopped",), "freeze": ("Running",), "unfreeze": ("Frozen",)}
    rows = [r for r in visible(call) if r.status in wanted.get(put.action, ("Running", "Frozen"))]

    async def run(_: Operation) -> None:
        failures = [f for f in await asyncio.gather(*map(one, rows)) if f]
        if failures:
            raise Invalid("\n".join(("The following instances failed to update state:", *failures)))

    async def one(row: Instance) -> str:
        """Why it could not be, if so."""
        try:
            failure = await (here if row.location == call.daemon.member_id else there)(call, row, put)
        except Error as refused:
            failure = refused.message
        return failure and f" - Instance: {row.name}: {failure}"

    started = call.daemon.operations.start(
        DESCRIPTIONS[put.action], {"instances": [f"/1.0/instances/{r.name}" for r in rows]}, run
    )
    return asynchronous(started)


async def here(call: AnyCall, row: Instance, put: InstanceStatePut) -> str:
    """Of an instance of this member, which has no address to ask itself at unless it is clustered."""
    begun = await begin(call, row, put)
    if isinstance(begun, Operation):
        await begun.wait(ENDS_WITHIN)
        return begun.err
    turns = Turns(call.daemon)
    await turns.over(begun.id, ENDS_WITHIN)
    if view := await turns.find(call.daemon.state, begun.id):
        return view.err
    started = await call.daemon.operations.get(begun.id)
    await started.wait(ENDS_WITHIN)
    return started.err


async def there(call: AnyCall, row: Instance, put: InstanceStatePut) -> str:
    path = f"/1.0/instances/{row.name}/state?project={row.project}"
    begun = await call.daemon.forwarder.ask(row.location, "PUT", path, put)
    wait = f"/1.0/operations/{begun['id']}/wait?timeout={ENDS_WITHIN}"
    ended = await call.daemon.forwarder.ask(row.location, "GET", wait, timeout=ENDS_WITHIN + 20)
    return str(ended["err"])


def act_of(call: AnyCall, put: InstanceStatePut) -> Act:
    """What to do with an instance's key. Raises Invalid for an unknown action."""
    daemon, force, timeout = call.daemon, put.force, float(put.timeout)
    if put.stateful:
        raise Invalid("Stateful stop and start need CRIU, which is not supported", key="stateful")
    actions: dict[str, Act] = {
        "start": lambda key: boot.start(daemon, key),
        "stop": lambda key: power.stop(daemon, key, force=force, timeout=timeout),
        "restart": lambda key: power.restart(daemon, key, force=force, timeout=timeout),
        "freeze": lambda key: power.freeze(daemon, key, frozen=True),
        "unfreeze": lambda key: power.freeze(daemon, key, frozen=False),
    }
    if put.action not in actions:
        raise Invalid(f'Unknown action "{put.action}": one of {", ".join(actions)}', key="action")
    return actions[put.action]
