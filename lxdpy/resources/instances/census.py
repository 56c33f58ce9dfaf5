"""PURE: all members with their GPUs and how many instances they have, as the scheduler sees them.

Counted once; from state to state only what changed is counted again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from cluster.membership.model import INVENTORIES, MEMBERS, Member
from cluster.scheduler.types import LINKS, GpuView, Hold, MemberView, Scheduling
from cluster.state.kept import Kept
from cluster.state.trail import Step
from cluster.state.txn import State
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.instances.model import INSTANCES, Instance


class Census:
    """Views of all members as of one state, and what they are made of."""

    def __init__(self, state: State) -> None:
        self.views: dict[str, MemberView] = {}  # by id
        self._locations: dict[str, str] = {}  # instance -> member
        self._instances: Counter[str] = Counter()
        self._places: dict[str, str] = {}  # GPU -> member
        self._gpus: defaultdict[str, dict[str, GpuView]] = defaultdict(dict)
        for key in state.rows(INSTANCES):
            self._instance(state, key)
        for uuid in state.rows(GPUS):
            self._gpu(state, uuid)
        for member in state.rows(MEMBERS).values():
            self.views[member.id] = self._view(state, member)

    def renew(self, state: State, steps: Iterable[Step]) -> None:
        stale = [member for table, key in steps for member in self._read(state, table, key)]
        for id_ in dict.fromkeys(stale):
            member = state.find(MEMBERS, id_)
            if member is None:
                self.views.pop(id_, None)
            else:
                self.views[id_] = self._view(state, member)

    def _read(self, state: State, table: str, key: str) -> tuple[str, ...]:
        """Take in a row as it is now; the members that look different with it."""
        if table == INSTANCES.name:
            return self._instance(state, key)
        if table == GPUS.name:
            return self._gpu(state, key)
        return (key,) if table in (MEMBERS.name, INVENTORIES.name) else ()

    def _instance(self, state: State, key: str) -> tuple[str, ...]:
        before, row = self._locations.pop(key, ""), state.find(INSTANCES, key)
        now = _home(row) if row else ""
        if row:
            self._locations[key] = now
        if before == now:
            return ()
        self._instances[before] -= 1
        self._instances[now] += 1
        return (before, now)

    def _gpu(self, state: State, uuid: str) -> tuple[str, ...]:
        before, row = self._places.pop(uuid, ""), state.find(GPUS, uuid)
        self._gpus[before].pop(uuid, None)
        if row is None:
            return (before,)
        self._places[uuid] = row.member
        self._gpus[row.member][uuid] = gpu_view(row)
        return (before, row.member)

    def _view(self, state: State, member: Member) -> MemberView:
        inventory = state.find(INVENTORIES, member.id)
        gpus = self._gpus[member.id]
        return MemberView(
            name=member.name,
            online=member.status in ("ready", "evacuated"),
            evacuated=member.status == "evacuated",
            scheduling=cast(Scheduling, member.config.get("scheduler.instance", "all")),
            groups=member.groups,
            architecture=member.architecture,
            instances=self._instances[member.id],
            gpus=overlapped([gpus[uuid] for uuid in sorted(gpus)]),
            cpus=inventory.cpus if inventory else 0,
            memory=inventory.memory if inventory else 0,
        )


def _home(row: Instance) -> str:
    """The member (id) that has it, or is about to have it."""
    move = row.move or row.reserved
    return move.to if move else row.location


def gpu_view(row: GpuRow) -> GpuView:
    return GpuView(
        uuid=row.uuid,
        vendor=row.vendor,
        model=row.model,
        memory=row.memory,
        driver=row.driver,
        driver_version=row.driver_version,
        pci=row.pci_address,
        numa=row.numa_node,
        drm=row.drm_id,
        vendor_id=row.vendor_id,
        product_id=row.product_id,
        links=tuple(sorted((uuid, LINKS.get(kind, 0)) for uuid, kind in row.links.items())),
        health=row.health,
        reason=row.reason,
        state=row.state,
        parent=row.parent,
        profile=row.profile,
        gi=row.gi,
        ci=row.ci,
        cdi=row.cdi,
        holders=tuple(Hold(shown(h.instance), h.sharing, h.memory) for h in row.holders),
    )


def overlapped(gpus: Sequence[GpuView]) -> tuple[GpuView, ...]:
    """All of a member: who has a card whole has each part of it as well, and who has a part is in the way of
    who wants the card. A card may be cut, or joined again, while somebody holds it.
    """
    if not any(gpu.parent for gpu in gpus):
        return tuple(gpus)
    whole = {gpu.uuid: gpu.holders for gpu in gpus}
    parts = defaultdict[str, list[Hold]](list)
    for gpu in gpus:
        parts[gpu.parent] += gpu.holders

    def seen(gpu: GpuView) -> GpuView:
        others = whole.get(gpu.parent, ()) if gpu.parent else parts.get(gpu.uuid, ())
        if not others or gpu.state == "partitioned":
            return gpu
        what = "which has the whole GPU" if gpu.parent else "which has a MIG device of it"
        holds = (Hold(f"{hold.holder}, {what}", "exclusive") for hold in others)
        return msgspec.structs.replace(gpu, holders=(*gpu.holders, *holds))

    return tuple(map(seen, gpus))


def shown(instance: str) -> str:
    """An instance's key as users say it: outside the default project with its project."""
    return instance.removeprefix("default/")


CENSUS: Kept[Census] = Kept(Census, Census.renew)
