"""/1.0/gpus: the cluster's GPUs and who holds them. Our own, behind the API extension `gpu_ledger`."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from aiohttp import web

from cluster.errors import NotFound
from cluster.membership.model import name_of
from lxdpy.resources.gpus import figures
from lxdpy.resources.gpus.commands import DrainGpu, parts_of
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder
from lxdpy.resources.wire import rfc3339, url
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/gpus")


class GpuPatch(msgspec.Struct):
    state: Literal["drain", "enable"]


@routes.on("GET", entitlement="can_view")
async def list_gpus(call: Call[None]) -> web.Response:
    """By member, then by where they sit in it. MIG devices are below their cards.

    With recursion=2 also what each card does just now, where its member tells.
    """
    matches = parse(call.filter)
    rows = call.state.rows(GPUS).values()
    parts = parts_by_card(rows)
    shown = [wire(call, row, parts.get(row.uuid, [])) for row in rows if not row.parent]
    shown.sort(key=lambda gpu: (gpu["member"], gpu["pci_address"], gpu["uuid"]))
    shown = [gpu for gpu in shown if matches(gpu)]
    if call.query("recursion") == "2":
        told = await figures.of_all(call.daemon)
        shown = [gpu | {"figures": told.get(gpu["uuid"])} for gpu in shown]
    return sync(shown if call.recursive else [url("gpus", gpu["uuid"]) for gpu in shown])


@routes.on("GET", "/{uuid}", entitlement="can_view")
async def show_gpu(call: Call[None]) -> web.Response:
    """A card, or a MIG device by itself."""
    row = found(call)
    return sync(wire(call, row, parts_of(call.state, row.uuid)))


@routes.on("PATCH", "/{uuid}", body=GpuPatch, entitlement="admin")
async def patch_gpu(call: Call[GpuPatch]) -> web.Response:
    """Drain: granted to nobody new, its holders stay. Enable: as before. Repeating either changes nothing."""
    # Proposed even if this member sees it done: it may lag behind one that was asked for the opposite.
    await call.store.propose(DrainGpu(found(call).uuid, draining=call.body.state == "drain"))
    return sync()


def found(call: AnyCall) -> GpuRow:
    row = call.state.find(GPUS, call.path("uuid"))
    if row is None:
        raise NotFound("GPU not found", gpu=call.path("uuid"))
    return row


def parts_by_card(rows: Iterable[GpuRow]) -> dict[str, list[GpuRow]]:
    """The MIG devices, in order, by uuid of their card."""
    found: dict[str, list[GpuRow]] = {}
    for row in sorted((row for row in rows if row.parent), key=lambda row: (row.gi, row.ci)):
        found.setdefault(row.parent, []).append(row)
    return found


def wire(call: AnyCall, row: GpuRow, parts: list[GpuRow]) -> dict[str, Any]:
    """`index` is the log's, at which all of it is true."""
    shown = {
        "uuid": row.uuid,
        "member": name_of(call.state, row.member),
        "vendor": row.vendor,
        "model": row.model,
        "memory": row.memory,
        "driver": row.driver,
        "driver_version": row.driver_version,
        "pci_address": row.pci_address,
        "vendor_id": row.vendor_id,
        "product_id": row.product_id,
        "drm_id": row.drm_id,
        "cdi": row.cdi,
        "numa_node": row.numa_node,
        "links": row.links,
        "health": row.health,
        "reason": row.reason,
        "state": row.state,
        "claimed_by": name_of(call.state, row.claimed_by) if row.claimed_by else "",
        "holders": holders_shown(call, row),
        "mig": [part_shown(call, part) for part in parts],
        "index": call.state.index,
    }
    return shown | ({"parent": row.parent} | part_shown(call, row) if row.parent else {})


def part_shown(call: AnyCall, row: GpuRow) -> dict[str, Any]:
    """A MIG device, below its card."""
    return {
        "uuid": row.uuid,
        "profile": row.profile,
        "gi": row.gi,
        "ci": row.ci,
        "cdi": row.cdi,
        "memory": row.memory,
        "state": row.state,
        "holders": holders_shown(call, row),
    }


def holders_shown(call: AnyCall, row: GpuRow) -> list[dict[str, Any]]:
    """Degraded: what it holds is gone or has failed; it stays the holder's, for when it is back."""
    degraded = row.missing or row.health == "failed"
    return [holder_shown(call, holder) | {"degraded": degraded} for holder in row.holders]


def holder_shown(call: AnyCall, holder: Holder) -> dict[str, Any]:
    """Who is confined to projects sees that a GPU is held by others, not by which."""
    project, _, instance = holder.instance.partition("/")
    if not call.identity.sees(project):
        project = instance = ""
    return {
        "project": project,
        "instance": instance,
        "device": holder.device if instance else "",
        "sharing": holder.sharing,
        "since": rfc3339(holder.since),
        "memory": holder.memory,
        "started": holder.started,
    }
