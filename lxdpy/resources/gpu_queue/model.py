"""PURE: the queue for GPUs: one row a request."""

from typing import Literal

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn
from lxdpy.resources.gpus.model import Order
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.snapshots.model import Snapshot

Status = Literal["waiting", "granted", "done", "ended"]
"""`granted`: its owners are at it. `done`: they have said so, of a start. `ended` without GPUs."""


class Turn(Stored, frozen=True):
    """A request that waits for GPUs, waited, or asked for several instances at once.

    Key: id of its operation.
    """

    id: str
    project: str
    status: Status = "waiting"
    instances: tuple[Instance, ...] = ()  # of a create: their rows; without a location while it waits
    snapshots: tuple[Snapshot, ...] = ()  # that are copied along
    start: str = ""  # of a start, or an unpark: key of the instance
    target: str = ""  # member, or "@group", that was asked for
    priority: int = 0
    since: int = 0  # index of the log at which it came
    asked_at: float = 0.0
    until: float = 0.0  # when it gives up; 0: never
    by: dict[str, str] = {}  # who asked
    location: str = ""  # granted: id of the member that does it; "" of several instances
    over_at: float = 0.0  # when it was granted, or ended
    err: str = ""  # why it ended
    cancelled: bool = False
    unparks: bool = False  # it runs already, and gave its GPUs back for a while

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the instances that it is for."""
        return (self.start,) if self.start else tuple(row.key for row in self.instances)

    @property
    def action(self) -> Literal["create", "start", "unpark"]:
        if not self.start:
            return "create"
        return "unpark" if self.unparks else "start"

    @property
    def order(self) -> Order:
        return (-self.priority, self.since)

    @property
    def label(self) -> str:
        """Who waits, in words for users."""
        first = self.keys[0].removeprefix("default/")
        return first if len(self.keys) == 1 else f"{first} and {len(self.keys) - 1} more"


GPU_QUEUE: Table[Turn] = Table("gpu_queue", Turn)


def waiting(state: State | Txn) -> list[Turn]:
    """In the order in which they are served."""
    return sorted(
        (turn for turn in state.rows(GPU_QUEUE).values() if turn.status == "waiting"),
        key=lambda turn: (turn.order, turn.id),
    )


def waiting_for(state: State | Txn, key: str) -> Turn | None:
    """The request that waits for GPUs for this instance."""
    turns = state.rows(GPU_QUEUE).values()
    return next((turn for turn in turns if turn.status == "waiting" and key in turn.keys), None)
