"""Operations of what waits for GPUs, made from the rows: every member has them until they are granted.

The operation of a group of instances stays a row to its end: it is over when the last of them is built.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cluster.errors import Conflict, Invalid
from cluster.state.txn import State
from lxdpy.resources.gpu_queue.breath import in_steps
from lxdpy.resources.gpu_queue.claims import Standing, standing, standings
from lxdpy.resources.gpu_queue.commands import LeaveQueue, building
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.instances.model import BUILDING, INSTANCES
from lxdpy.resources.operations.model import CANCELLED, FAILURE, RUNNING, STATUS, SUCCESS, OperationView
from lxdpy.resources.wire import rfc3339, url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


class Turns:
    """What the queue knows of operations. See `resources.operations.registry.Queued`."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def project(self, state: State, id: str) -> str | None:
        """None if there is no such row."""
        turn = state.find(GPU_QUEUE, id)
        return turn.project if turn else None

    def owner(self, state: State, id: str) -> str | None:
        """The member that carries it out; "" while any member may answer for it, None of another's id."""
        turn = state.find(GPU_QUEUE, id)
        return None if turn is None else owner_of(turn)

    async def find(self, state: State, id: str) -> OperationView | None:
        """None also of one that a member carries out."""
        turn = state.find(GPU_QUEUE, id)
        if turn is None or owner_of(turn):
            return None
        if turn.status != "waiting":
            return self.view(state, turn, None)
        return self.view(state, turn, await in_steps(standing(state, self._daemon.beat.online, id)))

    async def all(self, state: State) -> Iterable[tuple[str, OperationView]]:
        """With their projects. Oldest first."""
        rows = sorted(state.rows(GPU_QUEUE).values(), key=lambda turn: (turn.asked_at, turn.id))
        places = await in_steps(standings(state, self._daemon.beat.online))
        shown = (turn for turn in rows if not owner_of(turn))
        return [(turn.project, self.view(state, turn, places.get(turn.id))) for turn in shown]

    async def cancel(self, id: str) -> None:
        """Raises Invalid for one that does not wait any more."""
        try:
            await self._daemon.store.propose(LeaveQueue(id, "Operation cancelled", cancelled=True))
        except Conflict:
            raise Invalid("This operation can't be cancelled") from None

    async def over(self, id: str, timeout: float | None) -> None:
        """Until it is final, or some member carries it out; `timeout` seconds at most."""

        def is_over(state: State) -> bool:
            turn = state.find(GPU_QUEUE, id)
            return turn is None or bool(owner_of(turn)) or code_of(state, turn) != RUNNING

        try:
            await self._daemon.until(is_over, timeout)
        except TimeoutError:
            return

    def view(self, state: State, turn: Turn, place: Standing | None) -> OperationView:
        code = code_of(state, turn)
        return OperationView(
            id=turn.id,
            description=description(turn),
            created_at=rfc3339(turn.asked_at),
            updated_at=rfc3339(turn.over_at or turn.asked_at),
            status=STATUS[code],
            status_code=code,
            resources=resources(turn),
            metadata=metadata(place) if place else None,
            may_cancel=turn.status == "waiting",
            err=turn.err or unbuilt(state, turn),
            location=self._daemon.name,
        )


def description(turn: Turn) -> str:
    if turn.start:
        return "Unparking GPUs" if turn.unparks else "Starting instance"
    return BUILDING[turn.instances[0].source.type]


def owner_of(turn: Turn) -> str:
    return turn.location if turn.status in ("granted", "done") else ""


def code_of(state: State, turn: Turn) -> int:
    if turn.status == "ended":
        return CANCELLED if turn.cancelled else FAILURE
    if turn.status == "done":
        return FAILURE if turn.err else SUCCESS
    if turn.status == "waiting" or turn.start or any(building(state, row) for row in turn.instances):
        return RUNNING  # a start may have been granted before who asked was answered
    return FAILURE if unbuilt(state, turn) else SUCCESS


def unbuilt(state: State, turn: Turn) -> str:
    """Of a group that was granted: which instances could not be made; the log of their member says why."""
    if turn.status != "granted" or any(building(state, row) for row in turn.instances):
        return ""
    gone = [row.name for row in turn.instances if not _is_there(state, row.key, row.uuid)]
    return f"Could not be built, or were deleted: {', '.join(gone)}" if gone else ""


def _is_there(state: State, key: str, uuid: str) -> bool:
    row = state.find(INSTANCES, key)
    return row is not None and row.uuid == uuid


def metadata(place: Standing) -> dict[str, Any]:
    """LXD's client shows what ends in `_progress`."""
    return {
        "position": place.position,
        "reason": place.why,
        "queue_progress": f"Waiting for GPUs, number {place.position}: {place.why}",
    }


def resources(turn: Turn) -> dict[str, list[str]]:
    names = [key.partition("/")[2] for key in turn.keys]
    found: dict[str, list[str]] = {}
    for noun in ("containers", "instances"):
        found[noun] = [url(noun, name, project=turn.project) for name in names]
    return found
