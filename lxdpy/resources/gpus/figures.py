"""What all cards do just now: each member tells of its own, and one that does not answer of none."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from cluster.errors import Error
from cluster.membership.model import members
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

internal = Routes("/internal/1.0/gpus")

ANSWERS_WITHIN = 1.0  # seconds; a list must not wait for a member that just died
Told = dict[str, dict[str, Any]]  # by uuid


@internal.on("GET", internal=True)
async def show_own(call: Call[None]) -> web.Response:
    return sync(own(call.daemon))


def own(daemon: "Daemon") -> Told:
    """As they were seen last, some seconds ago at most."""
    return {
        gpu.uuid: msgspec.to_builtins(gpu.figures) | {"processes": len(gpu.processes)}
        for gpu in daemon.gpus.cards
    }


async def of_all(daemon: "Daemon") -> Told:
    others = [
        row.id for row in members(daemon.state) if row.id != daemon.member_id and daemon.beat.online(row.id)
    ]
    found = own(daemon)
    for told in await asyncio.gather(*(_of(daemon, member) for member in others)):
        found |= told
    return found


async def _of(daemon: "Daemon", member: str) -> Told:
    try:
        told: Told = await daemon.forwarder.ask(member, "GET", internal.prefix, timeout=ANSWERS_WITHIN)
    except Error:
        return {}
    return told
