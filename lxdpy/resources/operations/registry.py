"""The operations of this member, and where the others' are found."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol, Unpack

from cluster import ids
from cluster.errors import Error, NotFound
from cluster.membership.model import name_of
from cluster.state.txn import State
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.operations.operation import Operation, Options
from lxdpy.rest.trace import OPERATION, REQUEST

if TYPE_CHECKING:
    from cluster.raft.store import Store
    from lxdpy.daemon.hub import Hub

log = logging.getLogger(__name__)

KEPT = 5.0  # seconds a finished operation is still answered, as in LXD
AGAIN = (0.5, 2.0)  # seconds after which the end is cast again: a client at another member may wait for it
PATIENCE = 2.0  # seconds an unknown id of this member is waited for: the row that starts it may be on its way
BEGINS_WITHIN = 30.0  # seconds that it is waited for a daemon that has not caught up with the log yet
REMEMBERED = 10_000  # ids of operations that are gone: those are not waited for

Work = Callable[[Operation], Awaitable[None]]


class Replicated(Protocol):
    """Operations that are rows, not work: tokens. Every member answers for all of them."""

    def find(self, state: State, id: str) -> object | None:
        """What clients see of it: an OperationView, or a dict with the same names."""
        ...

    def all(self, state: State) -> Iterable[object]:
        """All of them, as clients see them."""
        ...

    async def cancel(self, id: str) -> None: ...


class Queued(Protocol):
    """Operations that are rows until some member carries them out: what waits for GPUs."""

    def project(self, state: State, id: str) -> str | None:
        """None for one that there is not."""
        ...

    def owner(self, state: State, id: str) -> str | None:
        """The member that carries it out; "" while there is none; None for one that is no such row."""
        ...

    async def find(self, state: State, id: str) -> OperationView | None:
        """What clients see of it, while no member carries it out."""
        ...

    async def all(self, state: State) -> Iterable[tuple[str, OperationView]]:
        """All of those, with their projects."""
        ...

    async def over(self, id: str, timeout: float | None) -> None:
        """Until it is final, or carried out; `timeout` seconds at most."""
        ...

    async def cancel(self, id: str) -> None: ...


class Operations:
    """Starts, finds and forgets operations. `tasks` is the daemon's group: its end cancels them."""

    def __init__(self, store: "Store", hub: "Hub", tasks: asyncio.TaskGroup) -> None:
        self.replicated: Replicated | None = None
        self.queued: Queued | None = None
        self._store = store
        self._hub = hub
        self._tasks = tasks
        self._here: dict[str, Operation] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._awaited: dict[str, asyncio.Event] = {}
        self.is_early: Callable[[], bool] = lambda: False  # whether rows that are there may yet start some
        store.on_link(self._linked)

    def start(
        self, description: str, resources: dict[str, list[str]], run: Work, **options: Unpack[Options]
    ) -> Operation:
        """Run `run(operation)` in the background; its Error fails the operation with the message.

        Descriptions are LXD's ("Creating instance"). Starting an id twice gives the first one. It runs at
        once, as LXD's do: no client sees it pending.
        """
        id = options.get("id") or ids.operation_id(self._store.member_id)
        if id in self._here:
            return self._here[id]
        operation = Operation(id, description, resources, self._location, options)
        operation.changed = self._tell
        self._here[id] = operation
        operation.started()
        operation.task = self._tasks.create_task(self._run(operation, run), name=f"operation {id}")
        if arrival := self._awaited.pop(id, None):
            arrival.set()
        return operation

    def find(self, id: str) -> Operation | None:
        """One of this member's."""
        return self._here.get(id)

    async def get(self, id: str, patience: float = PATIENCE) -> Operation:
        """One of this member's, even if the log only now brings what starts it, or the daemon has only just
        begun and will take it up. Raises NotFound.
        """
        until = time.monotonic() + BEGINS_WITHIN
        while id not in self._here and self._may_come(id):
            early = self.is_early()
            await self._arrives(id, patience)
            if not early or time.monotonic() > until:
                break
        if id not in self._here:
            raise NotFound("Operation not found", operation=id)
        return self._here[id]

    async def _arrives(self, id: str, patience: float) -> None:
        """Or not within `patience` seconds."""
        arrival = self._awaited.setdefault(id, asyncio.Event())
        try:
            async with asyncio.timeout(patience):
                await arrival.wait()
        except TimeoutError:
            self._awaited.pop(id, None)

    def all(self) -> list[Operation]:
        """This member's, oldest first."""
        return list(self._here.values())

    async def drain(self, timeout: float) -> list[Operation]:
        """Wait for what runs, `timeout` seconds at most; returns what still does."""
        try:
            async with asyncio.timeout(timeout):
                for operation in self.all():
                    await operation.wait()
        except TimeoutError:
            pass
        return [operation for operation in self.all() if not operation.is_final]

    def owner(self, state: State, id: str) -> str | None:
        """The member that has it; None for a token, for what no member has yet, for an id of no member."""
        if self.queued is not None and (member := self.queued.owner(state, id)) is not None:
            return member or None
        if self.replicated is not None and self.replicated.find(state, id) is not None:
            return None
        try:
            member = ids.member_of(id)
        except Error:
            return None
        return member if name_of(state, member) != member else None

    def _may_come(self, id: str) -> bool:
        if id in self._gone:
            return False
        queued = self.queued.owner(self._store.state, id) if self.queued is not None else None
        return id.endswith(self._store.member_id) or queued == self._store.member_id

    async def _run(self, operation: Operation, run: Work) -> None:
        OPERATION.set(operation.id)
        try:
            await run(operation)
        except Error as reason:
            log.info("%s failed: %s", operation.description, reason.message)
            operation.failed(reason.message)
        except asyncio.CancelledError:
            operation.cancelled()
            if not operation.may_cancel:
                raise  # not asked for by a client: the daemon stops
        except Exception:
            log.exception("%s failed", operation.description)
            operation.failed(f"Internal error; this member's log has it as request {REQUEST.get()}")
        else:
            operation.succeeded()
        finally:
            if operation.sockets is not None:
                operation.sockets.close()
            asyncio.get_running_loop().call_later(KEPT, self._forget, operation.id)

    def _forget(self, id: str) -> None:
        self._here.pop(id, None)
        self._gone[id] = None
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)

    def _location(self) -> str:
        return name_of(self._store.state, self._store.member_id)

    def _tell(self, operation: Operation) -> None:
        cast = self._hub.publish("operation", operation.shown(), project=operation.project)
        if cast is not None and operation.is_final:
            for seconds in AGAIN:
                asyncio.get_running_loop().call_later(seconds, self._hub.repeat, cast)

    def _linked(self, _member: str, up: bool) -> None:
        """Casts may have been lost while the link was down: clients that wait elsewhere must hear of the
        end.
        """
        if up:
            for operation in self.all():
                self._tell(operation)
