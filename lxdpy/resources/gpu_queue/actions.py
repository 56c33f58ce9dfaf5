"""What the leader does for the queue, and what owners do with what was granted to them."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cluster.errors import Conflict, Error, NotFound, Unavailable, Uncertain
from cluster.membership.model import MEMBERS
from cluster.state.command import CALLER, Command
from cluster.state.txn import State
from lxdpy.resources.gpu_queue.breath import in_steps
from lxdpy.resources.gpu_queue.claims import steps
from lxdpy.resources.gpu_queue.commands import FinishTurn, ForgetTurns, GrantTurn, LeaveQueue, forgettable
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn, waiting
from lxdpy.resources.gpu_queue.turns import Turns, description, owner_of, resources
from lxdpy.resources.gpus.model import GPUS_KEPT
from lxdpy.resources.instances import boot
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.parking import actions as parking

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

REMEMBERED = 60.0  # seconds a turn is kept after its end: a client may ask what became of it
TELL_AGAIN = 1.0  # seconds
LOOKED_AT = ("gpu_queue", "gpus_kept", "gpus", "members", "projects", "instances", "profiles", "settings")
"""Tables that say who is served."""


class GpuQueue:
    """The leader's part. Whatever it leaves unfinished, the next leader finds in the state."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._turns = Turns(daemon)
        self._seen: tuple[object, ...] | None = None  # what the queue was last found to be in order for
        self._told: dict[str, OperationView] = {}

    async def step(self) -> None:
        """Bring the queue in line with what is free. Costs nothing while nothing has changed."""
        state = self._daemon.state
        if not state.rows(GPU_QUEUE) and not state.rows(GPUS_KEPT):
            self._told.clear()
            return
        now = time.time()
        if forgettable(state, now - REMEMBERED):
            await self._daemon.store.propose(ForgetTurns(now - REMEMBERED))
        seen = self._sight(state, now)
        if self._seen is not None and same(seen, self._seen):
            return
        self._seen = None
        wanted = await in_steps(steps(state, self._daemon.beat.online, now))
        for command in wanted:
            await self._propose(command)
        await self._tell(self._daemon.state)
        if not wanted:
            self._seen = seen

    def _sight(self, state: State, now: float) -> tuple[object, ...]:
        """What a plan is made from."""
        beat = self._daemon.beat
        online = frozenset(member for member in state.rows(MEMBERS) if beat.online(member))
        late = frozenset(turn.id for turn in waiting(state) if 0 < turn.until <= now)
        return (online, late, *(state.tables.get(table) for table in LOOKED_AT))

    async def _propose(self, command: Command) -> None:
        """What others were faster at is planned anew the next time."""
        try:
            await self._daemon.store.propose(command)
        except Conflict as lost:
            log.info("the queue for GPUs: %s", lost.message)
        except (Unavailable, Uncertain):
            raise
        except Error as refused:
            if refused.facts.get("key") == "limits.gpu":
                log.info("the queue for GPUs: %s", refused.message)
            elif isinstance(command, GrantTurn):
                await self._daemon.store.propose(LeaveQueue(command.id, refused.message))
            else:
                raise

    async def _tell(self, state: State) -> None:
        """Events of the operations that no member runs."""
        views = {view.id: (project, view) for project, view in await self._turns.all(state)}
        for id, (project, view) in views.items():
            if self._told.get(id) != view:
                self._daemon.hub.publish("operation", view, project=project)
        self._told = {id: view for id, (_, view) in views.items()}


def same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Tables never change, so it is enough that they are the same ones."""
    return one[:2] == other[:2] and all(a is b for a, b in zip(one[2:], other[2:], strict=True))


def carry_out(daemon: "Daemon", turn: Turn) -> None:
    """Start the instance that was granted its GPUs, or give them to it, if it is this member's and not done
    yet. Idempotent.
    """
    if turn.status != "granted" or not turn.start or owner_of(turn) != daemon.member_id:
        return

    async def run(_: Operation) -> None:
        CALLER.set(turn.by or None)
        try:
            if turn.unparks:
                await parking.take(daemon, turn.start)
            elif not _runs(daemon, turn.start):
                await boot.start(daemon, turn.start)
        except Error as failure:
            if turn.unparks or not _runs(daemon, turn.start):  # else another start was faster
                await _finish(daemon, turn.id, failure.message)
                raise
        await _finish(daemon, turn.id)

    daemon.operations.start(
        description(turn), resources(turn), run, id=turn.id, project=turn.project, may_cancel=False
    )


def _runs(daemon: "Daemon", key: str) -> bool:
    row = daemon.state.find(INSTANCES, key)
    return row is not None and daemon.runtime.state(row.volume).status != "Stopped"


async def _finish(daemon: "Daemon", id: str, err: str = "") -> None:
    """Say that it was carried out, or why not; again for as long as nobody can be told.

    What is not said to be over is carried out once more by the next daemon, whenever that comes.
    """
    while True:
        try:
            await daemon.store.propose(FinishTurn(id, err))
        except (Unavailable, Uncertain) as later:
            log.info("the turn %s is over, which nobody could be told: %s", id, later.message)
            await asyncio.sleep(TELL_AGAIN)
        except NotFound:
            return  # it was told, and is forgotten
        else:
            return
