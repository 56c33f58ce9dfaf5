"""Warnings: what an operator should know of, from when it is first seen until it has ended."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from cluster.errors import NotFound
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn

Severity = Literal["low", "moderate", "high"]
Status = Literal["new", "acknowledged", "resolved"]

# Types are shown as they are. LXD's words where LXD has such a warning.
OFFLINE = "Offline cluster member"
TIME_SKEW = "Time skew detected between leader and local"
POOL_UNAVAILABLE = "Storage pool unavailable"
NETWORK_UNAVAILABLE = "Network unavailable"
AUTOSTART_FAILED = "Failed to autostart instance"
CERTIFICATE_FAILED = "Unable to update cluster certificate"  # here: a member's own
# Ours.
GPU_FAILED = "GPU failed"
DHCP_ENDED = "DHCP server of a network ended"
FENCED = "Instance ended as its member was cut off"
LEASE_ENDING = "Lease of GPUs about to end"

CONTROLLERS = {
    "blkio": "Couldn't find the CGroup blkio",
    "cpu": "Couldn't find the CGroup CPU controller",
    "cpuset": "Couldn't find the CGroup CPUset controller",
    "devices": "Couldn't find the CGroup devices controller",
    "freezer": "Couldn't find the CGroup freezer controller",
    "hugetlb": "Couldn't find the CGroup hugetlb controller",
    "memory": "Couldn't find the CGroup memory controller",
    "pids": "Couldn't find the CGroup pids controller",
}
"""By controller, the type of the warning that this host has none."""
MISSING_SWAP_ACCOUNTING = "Couldn't find the CGroup memory swap accounting"

SEVERITIES: Mapping[str, Severity] = {
    NETWORK_UNAVAILABLE: "high",
    POOL_UNAVAILABLE: "high",
    GPU_FAILED: "high",
    DHCP_ENDED: "moderate",
    FENCED: "high",
}
"""Those that are not low."""


class WarningRow(Stored, frozen=True):
    """One thing that is or was wrong, however often it was seen. Key: see `key_of`."""

    uuid: str
    type: str
    member: str  # id of where it happens
    entity: str  # URL of what it is about, "" for the member as a whole
    project: str  # "" where it concerns none
    severity: Severity
    message: str
    first_seen: float
    last_seen: float
    updated: float  # when its status changed last, or it was seen
    count: int = 1
    status: Status = "new"

    @property
    def key(self) -> str:
        return key_of(self.type, self.member, self.entity)


WARNINGS: Table[WarningRow] = Table("warnings", WarningRow)


def key_of(type_: str, member: str, entity: str) -> str:
    """What makes two the same warning."""
    return f"{member}/{type_}/{entity}"


def warning_with(state: State | Txn, uuid: str) -> WarningRow:
    """Raises NotFound."""
    for row in state.rows(WARNINGS).values():
        if row.uuid == uuid:
            return row
    raise NotFound(f"Warning not found: {uuid}", warning=uuid)


class WarningPut(msgspec.Struct):
    status: str = ""
