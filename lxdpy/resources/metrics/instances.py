"""What this member's running instances use."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cluster.state.txn import State
from lxdpy.host import figures
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.metrics.families import Families

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

NETWORK = {
    "receive_bytes": "bytes_received",
    "receive_drop": "packets_dropped_inbound",
    "receive_errs": "errors_received",
    "receive_packets": "packets_received",
    "transmit_bytes": "bytes_sent",
    "transmit_drop": "packets_dropped_outbound",
    "transmit_errs": "errors_sent",
    "transmit_packets": "packets_sent",
}
"""The words of metrics, and those of instances' states."""

Labels = Mapping[str, str]


async def measure(daemon: "Daemon", rows: Iterable[Instance], families: Families) -> None:
    """Add what these instances of this member use. Those that do not run use nothing."""
    running = [row for row in rows if daemon.runtime.state(row.volume).init_pid]
    networks = await daemon.runtime.networks(row.volume for row in running)
    state = daemon.state
    await asyncio.to_thread(_measure, daemon, state, running, networks, families)


def _measure(
    daemon: "Daemon",
    state: State,
    rows: Iterable[Instance],
    networks: Mapping[str, Mapping[str, Any]],
    families: Families,
) -> None:
    host_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for row in rows:
        labels = {"name": row.name, "project": row.project, "type": row.type}
        _groups(daemon, row, host_memory, labels, families)
        _network(networks.get(row.volume, {}), labels, families)
        devices = expanded(state, row)[1].values()
        mountpoints = {
            d["path"] for d in devices if d.get("type") == "disk" and d.get("path", "").startswith("/")
        }
        if pid := daemon.runtime.state(row.volume).init_pid:
            _file_systems(pid, mountpoints, labels, families)


def _groups(daemon: "Daemon", row: Instance, host_memory: int, labels: Labels, families: Families) -> None:
    groups, name = daemon.runtime.cgroups, row.volume
    for time in figures.cpu_times(groups, name):
        families.add("lxd_cpu_seconds_total", time.seconds, {"cpu": time.cpu, "mode": time.mode, **labels})
    for disk in figures.disks(groups, name, daemon.host):
        device = {"device": disk.device, **labels}
        families.add("lxd_disk_read_bytes_total", disk.read_bytes, device)
        families.add("lxd_disk_reads_completed_total", disk.reads, device)
        families.add("lxd_disk_written_bytes_total", disk.written_bytes, device)
        families.add("lxd_disk_writes_completed_total", disk.writes, device)
    for word, size in figures.memory(groups, name, host_memory).items():
        families.add(f"lxd_memory_{word}_bytes", size, labels)
    families.add("lxd_procs_total", groups.usage(name).processes, labels)


def _network(interfaces: Mapping[str, Any], labels: Labels, families: Families) -> None:
    for device, interface in sorted(interfaces.items()):
        for word, counter in NETWORK.items():
            value = interface["counters"][counter]
            families.add(f"lxd_network_{word}_total", value, {"device": device, **labels})


def _file_systems(pid: int, mountpoints: set[str], labels: Labels, families: Families) -> None:
    for one in figures.file_systems(pid, mountpoints):
        where = {"device": one.device, "fstype": one.kind, "mountpoint": one.mountpoint, **labels}
        families.add("lxd_filesystem_avail_bytes", one.available, where)
        families.add("lxd_filesystem_free_bytes", one.free, where)
        families.add("lxd_filesystem_size_bytes", one.size, where)
