"""The event stream of this member: one encoding an event, however many listen.

Operation and logging events start at the member they are about and are cast to the others, so that a client
may listen anywhere. Who hears one can read what was written before it: it is held back, for a moment, until
this member has applied what its sender had. Lifecycle events are made from the log by every member for itself
(`resources.lifecycle`) and never sent. Called from the API loop only; `publish_soon` from any thread.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cluster.errors import Error
from cluster.membership.model import is_clustered, name_of
from lxdpy.resources.events.model import Event, Type
from lxdpy.resources.lifecycle import Lifecycle
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.websocket import text_frame

if TYPE_CHECKING:
    from cluster.raft.store import Store

Cast = dict[str, Any]
CAST = "event"  # the type of our casts, among others'

REMEMBERED = 4096  # casts of other members known by their number, so that a repeated one is heard once
AGREE_WITHIN = 1.0  # seconds an event is held back at most; a healthy member lags milliseconds
STALLED_AFTER = 5.0  # seconds in which a listener took nothing of what waits for it, as in LXD
MOST_WAITING = 16 << 20  # bytes waiting for one listener; more is given up at once


class Sink(Protocol):
    """What a listener's frames are written to: an asyncio transport."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...


class Listener:
    """One client's choice of events, and how far behind it is."""

    def __init__(self, sink: Sink, types: Iterable[str], projects: frozenset[str] | None) -> None:
        self._sink = sink
        self.types = frozenset(types)
        self.projects = projects  # None: all
        self._written = 0
        self._taken = 0  # of what was written, when it last moved
        self._moved_at = 0.0

    def wants(self, type: str, project: str) -> bool:
        """Events of no project (logging, the server's own) are for every project's listeners."""
        return type in self.types and (self.projects is None or not project or project in self.projects)

    def write(self, frame: bytes) -> None:
        """Never waits: a listener that does not take its events is cut off, and harms no other."""
        if self._sink.is_closing():
            return
        waiting = self._sink.get_write_buffer_size()
        now = time.monotonic()
        taken = self._written - waiting
        if waiting <= 0 or taken > self._taken:
            self._taken, self._moved_at = taken, now
        elif now - self._moved_at > STALLED_AFTER or waiting > MOST_WAITING:
            self._sink.abort()
            return
        self._written += len(frame)
        self._sink.write(frame)


class Hub:
    """Who listens here, and the casts of the other members' hubs."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._listeners: set[Listener] = set()
        self._heard_before: OrderedDict[int, None] = OrderedDict()
        self._early: deque[tuple[float, Cast]] = deque()  # until when each is held back
        self._holding: asyncio.Task[None] | None = None
        self._on_operation: list[Callable[[str, str, bytes], object]] = []
        store.on_cast(self._heard)

    @property
    def location(self) -> str:
        """This member's name, as in events."""
        return name_of(self._store.state, self._store.member_id)

    def wanted(self, *, cast: bool) -> bool:
        """Whether anybody may listen: here or, with `cast`, elsewhere. From any thread."""
        return bool(self._listeners) or (cast and bool(self._store.links))

    def publish(
        self, type: Type, metadata: object, *, project: str = "", location: str = "", cast: bool = True
    ) -> Cast | None:
        """To who listens here and, with `cast`, at the other members. Returns what was cast, for `repeat`."""
        if not self.wanted(cast=cast):
            return None
        event = Event(type, rfc3339(time.time()), metadata, location or self.location, project)
        text = msgspec.json.encode(event)
        self._deliver(type, project, text)
        if not cast or not self._store.links:
            return None
        message = {
            "type": CAST,
            "of": type,
            "project": project,
            "event": text,
            "number": secrets.randbits(63),
            "index": self._store.state.index,
        }
        self._store.cast(message)
        return message

    def repeat(self, message: Cast) -> None:
        """Cast it again, as casts may be lost on a busy link; who heard it does not hear it twice."""
        self._store.cast(message)

    def publish_soon(self, type: Type, metadata: object, *, cast: bool) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop is closed: the daemon has stopped
            self._loop.call_soon_threadsafe(lambda: self.publish(type, metadata, cast=cast))

    def on_operation(self, callback: Callable[[str, str, bytes], object]) -> None:
        """Call with each event of others' operations: member (id), project, the event as it is sent."""
        self._on_operation.append(callback)

    def lifecycle(self, event: Lifecycle, at: float | None = None) -> None:
        """Here only, as every member has the same one; `at` is the proposal's time, unix seconds."""
        if not self._listeners:
            return
        metadata: dict[str, object] = {"action": event.action, "source": event.source}
        if event.context:
            metadata["context"] = event.context
        if event.requestor:
            metadata["requestor"] = event.requestor
        state = self._store.state
        about = event.location or ("" if is_clustered(state) else self._store.member_id)
        location = name_of(state, about) if about else ""
        stamp = rfc3339(time.time() if at is None else at)
        shown = Event("lifecycle", stamp, metadata, location, event.project)
        self._deliver("lifecycle", event.project, msgspec.json.encode(shown))

    @contextmanager
    def listening(
        self, sink: Sink, types: Iterable[str], projects: frozenset[str] | None
    ) -> Iterator[Listener]:
        """Write matching events to `sink` as websocket frames, within the block."""
        listener = Listener(sink, types, projects)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _heard(self, member: str, message: Cast) -> None:
        if message.get("type") != CAST or message["number"] in self._heard_before:
            return
        self._heard_before[message["number"]] = None
        if len(self._heard_before) > REMEMBERED:
            self._heard_before.popitem(last=False)
        if message["of"] == "operation":
            for callback in self._on_operation:
                callback(member, message["project"], message["event"])
        if not self._early and message.get("index", 0) <= self._store.state.index:
            self._deliver(message["of"], message["project"], message["event"])
            return
        self._early.append((time.monotonic() + AGREE_WITHIN, message))
        if self._holding is None:
            self._holding = self._loop.create_task(self._release(), name="events of what is not applied yet")

    async def _release(self) -> None:
        """In the order in which they came."""
        try:
            while self._early:
                until, message = self._early[0]
                with suppress(Error):  # a member that is cut off tells them late, but tells them
                    await self._store.wait_index(message.get("index", 0), max(0.0, until - time.monotonic()))
                self._early.popleft()
                self._deliver(message["of"], message["project"], message["event"])
        finally:
            self._holding = None

    def _deliver(self, type: str, project: str, text: bytes) -> None:
        frame = b""
        for listener in list(self._listeners):
            if listener.wants(type, project):
                frame = frame or text_frame(text)
                listener.write(frame)
