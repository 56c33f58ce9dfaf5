"""The Raft thread: its own loop, so that no handler can keep it from its heartbeats; and one pass over the
node after whatever happened. Syncs of the journal happen here: they release the GIL, not the thread."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cluster.raft.batches import Reply
from cluster.raft.bridge import Mailbox, resolve
from cluster.raft.carrier import Carrier, PeerContexts
from cluster.raft.core import HEARTBEAT
from cluster.raft.forward import Forwarder
from cluster.raft.journal import Identity
from cluster.raft.messages import Cast, Message
from cluster.raft.node import Applied, Hooks, Node
from cluster.state.machine import Machine

log = logging.getLogger(__name__)

TICK = HEARTBEAT / 2  # seconds between passes when nothing happens


class Setup(msgspec.Struct, frozen=True):
    folder: Path
    identity: Identity
    machine: Machine
    addresses: Callable[[], Mapping[str, str]]
    voters: Sequence[str]
    contexts: PeerContexts
    fresh: bool


class View(msgspec.Struct, frozen=True):
    """What a member knows of its group, as of one pass."""

    leader: str | None = None
    is_leader: bool = False
    term: int = 0
    voters: frozenset[str] = frozenset()
    learners: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    cut_off: bool = False  # there is no leader, nor could there be one with whom it has links


class Face(Protocol):
    """The other side of the bridge: called on the API loop, in order."""

    def started(self) -> None: ...
    def ended(self, error: BaseException | None) -> None: ...
    def published(self, index: int, applied: list[Applied], view: View) -> None: ...
    def heard(self, member: str, body: dict[str, Any]) -> None: ...
    def failed(self, reason: str, /) -> object: ...
    def dismissed(self, by: str, /) -> object: ...


class RaftThread:
    """`start` and `post` from any thread; everything else happens on its own."""

    def __init__(self, setup: Setup, api: Mailbox, face: Face) -> None:
        self.node: Node
        self.carrier: Carrier
        self.forwarder: Forwarder
        self._setup = setup
        self._api = api
        self._face = face
        self._inbox: Mailbox
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="raft", daemon=True)
        self._scheduled = False
        self._frames: list[tuple[str, Message]] = []
        self._applied: list[Applied] = []
        self._published = (-1, View())

    # From other threads

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Call on the Raft thread, and make a pass after it. Only after `started`."""
        self._inbox.post(self._call, call, args)

    def post_quietly(self, call: Callable[..., object], *args: Any) -> None:
        """Call on the Raft thread: nothing for the node in it."""
        self._inbox.post(call, *args)

    def answer(self, future: "asyncio.Future[Reply]", reply: Reply) -> None:
        """On the Raft thread: an answer for who awaits it on the API loop."""
        self._api.post(resolve, future, reply)

    # The thread

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            task = self._loop.create_task(self._main())
            self._loop.run_until_complete(asyncio.wait([task]))
            error = task.exception()
        self._api.post(self._face.ended, error)

    async def _main(self) -> None:
        setup = self._setup
        self._loop.set_exception_handler(self._on_exception)
        self._inbox = Mailbox(self._loop)
        self._stop = asyncio.Event()
        self.carrier = Carrier(
            setup.identity.cluster_id, setup.identity.member_id, setup.contexts, setup.addresses, self
        )
        hooks = Hooks(
            send=self.carrier.send,
            write_out=self.carrier.write_out,
            on_applied=self._applied.append,
            on_fatal=self._failed,
        )
        self.node = Node(
            setup.folder, setup.identity, setup.machine, hooks, voters=setup.voters, fresh=setup.fresh
        )
        self.forwarder = Forwarder(self.node, self.carrier.send)
        try:
            await self._live()
        finally:
            self.node.close()

    async def _live(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self.carrier.start(tasks)
                self._pass()
                self._api.post(self._face.started)
                self._on_timer()
                tasks.create_task(self._until_stopped())
        except* _Stopped:
            pass

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        self.carrier.close()
        raise _Stopped

    def _on_timer(self) -> None:
        if not self._stop.is_set():
            self._kick()
            self._loop.call_later(TICK, self._on_timer)

    def _call(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        call(*args)
        self._kick()

    def _kick(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._scheduled = False
        if self.node.failed or self._stop.is_set():
            return
        frames, self._frames = self._frames, []
        for member, message in frames:
            if not self.forwarder.receive(member, message):
                self.node.receive(member, message)
        again = self.node.step()
        self.carrier.write_out()
        self._publish()
        if again:
            self._kick()

    def _publish(self) -> None:
        node = self.node
        view = View(
            leader=node.leader,
            is_leader=node.is_leader,
            term=node.term,
            voters=node.voters,
            learners=node.guard.peers.learners,
            links=frozenset(node.guard.peers.links),
            cut_off=node.leader is None and not self._reaches_majority(),
        )
        if (node.applied, view) == self._published:
            return
        if view.leader != self._published[1].leader:
            self.forwarder.give_up(unless=view.leader)
        self._published = (node.applied, view)
        self._api.post(self._face.published, node.applied, self._applied.copy(), view)
        self._applied.clear()

    def _reaches_majority(self) -> bool:
        there = {*self.node.guard.peers.links, self._setup.identity.member_id}
        return 2 * len(self.node.voters & there) > len(self.node.voters)

    # Events of the carrier

    def receive(self, member: str, message: Message) -> None:
        if isinstance(message, Cast):
            self._api.post(self._face.heard, member, message.body)
        else:
            self._frames.append((member, message))
            self._kick()

    def link_up(self, member: str) -> None:
        self.node.guard.link_up(member)
        self._kick()

    def link_down(self, member: str) -> None:
        self.node.guard.link_down(member)
        if member == self.node.leader:
            self.forwarder.give_up(unless=None)
        self._kick()

    def dismissed(self, by: str) -> None:
        self._api.post(self._face.dismissed, by)

    # Posted by the store

    def stop(self) -> None:
        self._stop.set()

    def adopt(self, connection: socket.socket) -> None:
        self.carrier.adopt(connection)

    def pause(self, paused: bool) -> None:
        self.node.batches.paused = paused

    # Failures

    def _failed(self, reason: str) -> None:
        self._api.post(self._face.failed, reason)
        self._loop.call_soon(self.carrier.close)

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A broken connection is the weather; anything else is a bug, and a half-made pass cannot go on."""
        error = context.get("exception")
        if error is None or "transport" in context or "protocol" in context:
            log.debug("raft connection: %s", context)
            return
        log.critical("bug on the raft thread", exc_info=error)
        self.node.desk.fatal(repr(error))


class _Stopped(Exception):
    """Cancels what is left of the thread's tasks."""
