"""Metrics of this member's GPUs, and, by the leader, of what projects hold of all."""

import time
from collections import Counter
from typing import TYPE_CHECKING, get_args

from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.resources.gpus.model import GPUS, GpuRow, Health
from lxdpy.resources.gpus.usage import WAYS, holds, used, way_of
from lxdpy.resources.metrics.families import Families
from lxdpy.resources.projects.limits import limit_of
from lxdpy.resources.projects.model import PROJECTS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def measure(daemon: "Daemon", families: Families) -> None:
    """As its cards were seen last, some seconds ago at most."""
    seen = {gpu.uuid: gpu for gpu in daemon.gpus.cards}
    for uuid, row in sorted(daemon.state.rows(GPUS).items()):
        if row.member == daemon.member_id:
            _card(row, seen.get(uuid), families)
    if daemon.store.is_leader:
        _projects(daemon, families)


def _card(row: GpuRow, gpu: Gpu | None, families: Families) -> None:
    """A MIG device is told of as a card, with the card that it is a part of."""
    own = {"uuid": row.uuid}
    info = {"model": row.model, "driver": row.driver_version, "pci": row.pci_address, "parent": row.parent}
    families.add("lxd_gpu_info", 1, own | info)
    families.add("lxd_gpu_memory_total_bytes", row.memory, own)
    for health in get_args(Health):
        families.add("lxd_gpu_health", row.health == health, own | {"state": health})
    for holder in row.holders:
        project, _, name = holder.instance.partition("/")
        mode = way_of(row, holder)
        families.add("lxd_gpu_allocated", 1, own | {"project": project, "name": name, "mode": mode})
    if gpu is not None:
        families.add("lxd_gpu_ecc_errors_total", gpu.signs.ecc, own)
        _figures(gpu.figures, own, families)


def _figures(figures: Figures, own: dict[str, str], families: Families) -> None:
    for name, value in (
        ("lxd_gpu_memory_used_bytes", figures.memory_used),
        ("lxd_gpu_utilization_ratio", figures.busy),
        ("lxd_gpu_temperature_celsius", figures.temperature),
        ("lxd_gpu_power_watts", figures.power),
        ("lxd_gpu_energy_joules_total", figures.energy),
    ):
        if value is not None:
            families.add(name, value, own)


def _projects(daemon: "Daemon", families: Families) -> None:
    """Sums over all members would count what each of them tells: so one does."""
    state = daemon.state
    held = Counter(holder.instance.partition("/")[0] for _, holder in holds(state))
    for name, row in sorted(state.rows(PROJECTS).items()):
        families.add("lxd_project_gpu_usage", held[name], {"project": name})
        if (limit := limit_of(row, "gpu")) >= 0:
            families.add("lxd_project_gpu_limit", limit, {"project": name})
    seconds: Counter[tuple[str, str]] = Counter()
    for key, usage in used(state, time.time()).items():
        for way in WAYS:
            seconds[key.partition("/")[0], way] += getattr(usage, way)
    for (project, mode), total in sorted(seconds.items()):
        families.add("lxd_gpu_seconds_total", total, {"project": project, "mode": mode})
