"""Metric families: what they are called, and their samples. Names and labels are LXD's."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

Type = Literal["counter", "gauge"]

MEMORY = {
    "Active_anon": "Anonymous memory that was used lately",
    "Active_file": "File cache that was used lately",
    "Active": "Memory that was used lately",
    "Cached": "File cache",
    "Dirty": "Memory that has to be written back to disk",
    "Inactive_anon": "Anonymous memory that was not used lately",
    "Inactive_file": "File cache that was not used lately",
    "Inactive": "Memory that was not used lately",
    "Mapped": "Files that are mapped into memory",
    "MemAvailable": "Memory that programs can still get",
    "MemFree": "Memory that is not used at all",
    "MemTotal": "Memory that there is for the instance",
    "RSS": "Anonymous memory and swap cache",
    "Shmem": "Memory in file systems in memory, and shared",
    "Swap": "Swap that is used",
    "Unevictable": "Memory that cannot be given up",
    "Writeback": "Memory that is being written to disk",
}
COUNTERS = {
    "lxd_cpu_seconds_total": "Processor time that was used",
    "lxd_disk_read_bytes_total": "Bytes read from disks",
    "lxd_disk_reads_completed_total": "Reads from disks",
    "lxd_disk_written_bytes_total": "Bytes written to disks",
    "lxd_disk_writes_completed_total": "Writes to disks",
    "lxd_network_receive_bytes_total": "Bytes received on an interface",
    "lxd_network_receive_drop_total": "Packets received and dropped",
    "lxd_network_receive_errs_total": "Errors of receiving",
    "lxd_network_receive_packets_total": "Packets received",
    "lxd_network_transmit_bytes_total": "Bytes sent on an interface",
    "lxd_network_transmit_drop_total": "Packets to be sent and dropped",
    "lxd_network_transmit_errs_total": "Errors of sending",
    "lxd_network_transmit_packets_total": "Packets sent",
    "lxd_gpu_ecc_errors_total": "Memory errors of a GPU that were not corrected, since its driver was loaded",
    "lxd_gpu_energy_joules_total": "Energy that a GPU has used, since its driver was loaded",
    "lxd_gpu_seconds_total": "Time for which GPUs were held, by project and way",
    "lxdpy_raft_syncs_total": "How often the log was synced to disk",
}
GAUGES = {
    "lxd_filesystem_avail_bytes": "Room in a file system that users can have",
    "lxd_filesystem_free_bytes": "Room in a file system",
    "lxd_filesystem_size_bytes": "Size of a file system",
    **{f"lxd_memory_{word}_bytes": text for word, text in MEMORY.items()},
    "lxd_procs_total": "Processes that run",
    "lxd_gpu_info": "A GPU of this member: always 1",
    "lxd_gpu_allocated": "Who holds a GPU, and how: always 1",
    "lxd_gpu_health": "How a GPU is: 1 for its state, 0 for the others",
    "lxd_gpu_memory_total_bytes": "Memory of a GPU",
    "lxd_gpu_memory_used_bytes": "Memory of a GPU that is in use",
    "lxd_gpu_power_watts": "Power that a GPU draws",
    "lxd_gpu_temperature_celsius": "Temperature of a GPU",
    "lxd_gpu_utilization_ratio": "Share of time in which a GPU works",
    "lxd_project_gpu_limit": "GPUs that a project may hold (told by the leader only)",
    "lxd_project_gpu_usage": "GPUs that a project holds (told by the leader only)",
    "lxd_operations_total": "Operations that run on this member",
    "lxd_warnings_total": "Warnings that are not resolved",
    "lxd_uptime_seconds": "Seconds since the daemon was started",
    "lxdpy_instances": "Instances of this member, by status",
    "lxdpy_members": "Members of the cluster, by what this one hears of them",
    "lxdpy_raft_leader": "Whether this member leads",
    "lxdpy_raft_term": "Term of the log",
    "lxdpy_raft_applied": "Index of the last entry that was applied here",
    "lxdpy_raft_committed": "Index of the last entry that is known to be committed",
    "lxdpy_raft_entries": "Entries in the log since its snapshot",
    "lxdpy_raft_journal_bytes": "Size of the log on disk",
    "lxdpy_raft_links": "Members this one can send to",
    "lxdpy_raft_voters": "Members that vote",
    "lxdpy_raft_waiting": "Changes that wait to be written",
}


class Families:
    """Samples by family, in the order of the names above."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def add(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Raises KeyError for a name that has no description."""
        if name not in self._found:
            if name not in COUNTERS and name not in GAUGES:
                raise KeyError(name)
            self._found[name] = []
        self._found[name].append((labels or {}, value))

    def metrics(self) -> Iterator[Metric]:
        known = {**COUNTERS, **GAUGES}
        for name in known:
            if name in self._found:
                kind: Type = "counter" if name in COUNTERS else "gauge"
                metric = Metric(name.removesuffix("_total") if kind == "counter" else name, known[name], kind)
                for labels, value in self._found[name]:
                    metric.add_sample(name, dict(labels), value)
                yield metric


class Collected:
    """What the library writes as text."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part


def text_of(*parts: Iterable[Metric]) -> bytes:
    """In Prometheus' text format, version 0.0.4."""
    return generate_latest(Collected(*parts))
