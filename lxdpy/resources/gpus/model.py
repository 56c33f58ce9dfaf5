"""The GPU ledger: one row a card, and one each of its MIG devices, with who holds it.

What grants it is in commands.py. A card that is cut into MIG devices is held by nobody; they are.
"""

from typing import Literal

from cluster.state.table import Stored, Table

Health = Literal["ok", "suspect", "failed", "recovering"]
Sharing = Literal["exclusive", "shared"]
Order = tuple[int, int]
"""Place in the queue: smaller is earlier."""

UNQUEUED: Order = (1 << 32, 1 << 62)  # of who does not wait at all

State = Literal["free", "exclusive", "shared", "partitioned", "draining", "missing", "conflict"]


class Holder(Stored, frozen=True):
    """One instance's hold on one GPU."""

    instance: str  # key, "project/name"
    device: str  # name of the device in the instance
    sharing: Sharing
    since: float  # unix seconds, the proposer's clock
    memory: int = 0  # bytes reserved; shared holders only
    started: bool = False  # false: granted by a create, given back if no start follows in time


class GpuRow(Stored, frozen=True):
    """A GPU of the cluster. Key: uuid, the NVIDIA UUID, AMD's unique id, or member and PCI address."""

    uuid: str
    member: str  # id
    vendor: str
    model: str
    memory: int  # bytes
    driver: str = ""
    driver_version: str = ""
    pci_address: str = ""
    vendor_id: str = ""
    product_id: str = ""
    drm_id: str = ""
    numa_node: int = 0
    links: dict[str, str] = {}  # uuid of the other card -> kind, "nvlink"
    health: Health = "ok"
    missing: bool = False  # its member no longer sees it; kept while somebody holds it
    draining: bool = False
    claimed_by: str = ""  # id of another member that announced the same uuid: a conflict, granted to nobody
    holders: tuple[Holder, ...] = ()
    freed: float = 0.0  # unix seconds; end of the last hold: the next one begins no earlier
    reason: str = ""  # why health is not ok
    lasting: str = ""  # the part of the reason that only a reset of the card ends
    boot: str = ""  # the start of its machine in which that was found
    partitioned: bool = False  # a card in MIG mode
    parts: tuple[str, ...] = ()  # uuids of a card's MIG devices, those too that are held and missing
    parent: str = ""  # of a MIG device: uuid of its card
    profile: str = ""  # likewise: "1g.5gb"
    gi: int = -1  # GPU instance
    ci: int = -1  # compute instance in it
    cdi: tuple[str, ...] = ()  # its names as a CDI device

    @property
    def state(self) -> State:
        if self.claimed_by:
            return "conflict"
        if self.missing:
            return "missing"
        if self.draining:
            return "draining"
        if self.partitioned:
            return "partitioned"
        return self.holders[0].sharing if self.holders else "free"


GPUS: Table[GpuRow] = Table("gpus", GpuRow)


class Kept(Stored, frozen=True):
    """A GPU that nobody behind the first in the queue may have. Key: its uuid."""

    turn: str  # id
    label: str
    priority: int
    since: int

    @property
    def order(self) -> Order:
        return (-self.priority, self.since)


GPUS_KEPT: Table[Kept] = Table("gpus_kept", Kept)
