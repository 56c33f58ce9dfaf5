"""A member without Raft and without a kernel: the real state machine, whose proposals apply at once.

store = LocalStore()
daemon = local_daemon(tmp_path, store)
async with serving(daemon, routes) as client:
    assert (await client.ask("GET", "/1.0/profiles"))["metadata"] == [...]
"""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import msgspec
from aiohttp import web

from cluster.errors import Unavailable, from_info
from cluster.membership.commands import FoundCluster
from cluster.membership.model import ALONE, Cluster, Member
from cluster.state.command import Command, entry_of
from cluster.state.table import Table
from cluster.state.txn import Change, State
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.hub import Hub
from lxdpy.resources.operations.registry import Operations
from lxdpy.resources.server.origins import headers_for
from lxdpy.resources.tables import new_machine
from lxdpy.rest.app import Api
from lxdpy.rest.route import Routes

MEMBER_ID = "0123456789ab"


class Applied(NamedTuple):
    state: State
    changes: tuple[Change, ...]
    proposed_at: float
    snapshot: bool = False


class LocalStore:
    """The face of `cluster.raft.store.Store` over a state machine of its own. Every proposal succeeds or is
    refused at once; `now` is the clock of the proposals.
    """

    def __init__(self, member_id: str = MEMBER_ID, *, founded: bool = True) -> None:
        self.machine = new_machine()
        self.member_id = member_id
        self.now = 1_800_000_000.0
        self.voters = frozenset((member_id,))
        self.links: frozenset[str] = frozenset()
        self.sent: list[dict[str, Any]] = []  # what was cast
        self.peers: list[LocalStore] = []  # get what is cast
        self._watchers: list[Callable[[Any], None]] = []
        self._casts: list[Callable[[str, dict[str, Any]], None]] = []
        self._leaders: list[Callable[[str | None], object]] = []
        self._links: list[Callable[[str, bool], None]] = []
        self._applied = asyncio.Condition()
        if founded:
            self.run(FoundCluster(Cluster("c1"), Member(member_id, ALONE, status="ready")))

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def leader(self) -> str | None:
        return self.member_id

    @property
    def is_leader(self) -> bool:
        return True

    def run(self, command: Command, *, request_id: str = "") -> State:
        """Propose without awaiting: for setting a scene."""
        entry = entry_of(
            command, request_id=request_id or uuid.uuid4().hex, proposer=self.member_id, proposed_at=self.now
        )
        outcome = self.machine.apply(self.state.index + 1, entry)
        if outcome.error:
            raise from_info(outcome.error)
        for callback in list(self._watchers):
            callback(Applied(self.state, outcome.changes, self.now))
        return self.state

    def put(self, table: Table[Any], key: str, row: msgspec.Struct | None) -> None:
        """Write a row past all commands; None removes it."""
        rows = dict(self.state.rows(table))
        before = rows.pop(key, None)
        if row is not None:
            rows[key] = row
        index = self.state.index + 1
        self.machine.state = State(index, {**self.state.tables, table.name: rows})
        for callback in list(self._watchers):
            callback(Applied(self.state, (Change(table.name, key, before, row),), self.now))

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        await asyncio.sleep(0)
        state = self.run(command, request_id=request_id)
        async with self._applied:
            self._applied.notify_all()
        return state

    async def skip(self) -> None:
        """Have another member's entry applied that changes nothing here."""
        self.machine.state = State(self.state.index + 1, self.state.tables)
        async with self._applied:
            self._applied.notify_all()

    async def read_index(self, timeout: float = 5.0) -> State:
        return self.state

    async def wait_index(self, index: int, timeout: float = 5.0) -> State:
        try:
            async with asyncio.timeout(timeout), self._applied:
                await self._applied.wait_for(lambda: self.state.index >= index)
        except TimeoutError:
            raise Unavailable(f"This member has not applied entry {index} yet") from None
        return self.state

    def watch(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def cast(self, message: dict[str, Any], to: str | None = None) -> None:
        self.sent.append(message)
        for peer in self.peers:
            if to in (None, peer.member_id):
                peer.hear(self.member_id, msgspec.msgpack.decode(msgspec.msgpack.encode(message)))

    def hear(self, member_id: str, message: dict[str, Any]) -> None:
        """Deliver what `member_id` cast."""
        for callback in list(self._casts):
            callback(member_id, message)

    def on_cast(self, callback: Callable[[str, dict[str, Any]], None]) -> None:
        self._casts.append(callback)

    def on_link(self, callback: Callable[[str, bool], None]) -> None:
        self._links.append(callback)

    def on_leader(self, callback: Callable[[str | None], object]) -> None:
        self._leaders.append(callback)

    def elect(self, member_id: str) -> None:
        """Say that it leads now."""
        for callback in list(self._leaders):
            callback(member_id)

    def addresses_changed(self) -> None:
        """There is nobody to dial."""

    def link(self, member_id: str, up: bool) -> None:
        """Have a link come up or go down."""
        self.links = self.links | {member_id} if up else self.links - {member_id}
        for callback in list(self._links):
            callback(member_id, up)


def local_daemon(root: Path, store: LocalStore | None = None, **parts: object) -> Daemon:
    """A Daemon of the store, hub, operations, `parts`, and of what begins empty. Within a loop."""
    store = store or LocalStore()
    hub = Hub(cast(Any, store))
    made: dict[str, Any] = {"root": root, "store": store, "hub": hub, **parts}
    if "operations" not in made and "tasks" in made:
        made["operations"] = Operations(cast(Any, store), hub, made["tasks"])
    daemon: Daemon = object.__new__(Daemon)
    for field in fields(Daemon):
        if field.name in made:
            setattr(daemon, field.name, made[field.name])
        elif field.default is not MISSING:
            setattr(daemon, field.name, field.default)
        elif field.default_factory is not MISSING:
            setattr(daemon, field.name, field.default_factory())
    daemon.current = True
    return daemon


class Local:
    """A client of a served daemon."""

    def __init__(self, session: aiohttp.ClientSession, base: str, api: Api) -> None:
        self.session = session
        self.base = base
        self.api = api
        self.hub = api.daemon.hub

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """The whole envelope of a JSON answer."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", **headers}
        asked = self.session.request(method, self.base + path, data=data, headers=headers)
        async with asked as reply:
            answer: dict[str, Any] = msgspec.json.decode(await reply.read())
            return answer

    async def reply(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> aiohttp.ClientResponse:
        """The answer, its body read."""
        data = None if body is None else io.BytesIO(body)
        reply = await self.session.request(method, self.base + path, data=data, headers=headers)
        await reply.read()
        return reply


@asynccontextmanager
async def serving(daemon: Daemon, *routes: Routes, unix: Path | None = None) -> AsyncIterator[Local]:
    """Serve `routes` on a unix socket, where every caller is an admin."""
    api = Api(daemon, routes, headers_for)
    api.phase = "ready"
    runner = web.ServerRunner(api.server())
    await runner.setup()
    path = unix or daemon.root / "unix.socket"
    site = web.UnixSite(runner, str(path))
    await site.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            yield Local(session, "http://lxd", api)
    finally:
        await runner.cleanup()
