"""Stores over real TLS on loopback, all in one process."""

import asyncio
import atexit
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from cluster.errors import Error
from cluster.raft.store import Applied, Identity, Store
from cluster.tls.certificates import KeyPair, make
from cluster.tls.contexts import Contexts
from tests.cluster.raft.toy import machine
from tests.patience import WITHIN, eventually

CLUSTER = "c1"


@cache
def _keys() -> Path:
    folder = tempfile.mkdtemp(prefix="raft-keys-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@cache
def keys(name: str) -> KeyPair:
    """Made once for all tests: they cost milliseconds each."""
    certificate, key = make(name)
    pair = KeyPair(_keys() / f"{name}.crt", _keys() / f"{name}.key")
    pair.certificate.write_text(certificate)
    pair.key.write_text(key)
    return pair


class Member:
    """A store with a listener that hands all it accepts to it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        addresses: Callable[[], Mapping[str, str]],
        *,
        cluster_id: str = CLUSTER,
        key_name: str = "",
        trusted: Iterable[str] = "abcde",
    ) -> None:
        self.name = name
        self.folder = folder / name
        self.cluster_id = cluster_id
        self.addresses = addresses
        self.contexts = Contexts(keys(key_name or name))
        self.contexts.update({other: keys(other).pem() for other in trusted})
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.failures: list[str] = []
        self.dismissals: list[str] = []  # by whom
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self.store: Store

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # shut down
            connection.setblocking(False)
            self.store.adopt(connection)

    async def start(self, voters: Iterable[str], *, fresh: bool = True) -> Store:
        self.store = Store(
            self.folder,
            Identity(self.cluster_id, self.name),
            machine(),
            addresses=self.addresses,
            voters=list(voters),
            contexts=self.contexts,
            fresh=fresh,
            on_fatal=self.failures.append,
            on_dismissed=self.dismissals.append,
        )
        await self.store.start()
        if not self._accepting.is_alive():
            self._accepting.start()
        return self.store

    @property
    def leads(self) -> bool:
        return hasattr(self, "store") and self.store.is_leader

    async def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        if self._accepting.is_alive():
            await asyncio.to_thread(self._accepting.join)
        self.listener.close()
        if hasattr(self, "store"):
            await self.store.stop()


class Group:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: dict[str, Member] = {}

    def addresses(self) -> dict[str, str]:
        return {name: member.address for name, member in self.members.items()}

    def __getitem__(self, name: str) -> Store:
        return self.members[name].store

    @property
    def stores(self) -> list[Store]:
        return [member.store for member in self.members.values()]

    async def add(self, name: str, voters: Iterable[str]) -> Store:
        """A new member, with a link to and from all others; a learner unless it is among the voters."""
        member = Member(self.folder, name, self.addresses)
        self.members[name] = member
        store = await member.start(voters)
        for other in self.stores:
            other.addresses_changed()
            other.set_learners(self.members)
        return store

    async def leader(self) -> Store:
        await eventually(lambda: any(store.is_leader for store in self.stores))
        return next(store for store in self.stores if store.is_leader)


@asynccontextmanager
async def group(folder: Path, names: str) -> AsyncIterator[Group]:
    """A founder that let the others join and vote, one after the other."""
    made = Group(folder)
    try:
        founder = await made.add(names[0], names[0])
        for name in names[1:]:
            await made.add(name, founder.voters)
            await _vote(founder, name)
        yield made
    finally:
        # The leader last: it would hand over to one that is about to stop, and wait for it.
        for member in sorted(made.members.values(), key=lambda member: member.leads):
            await member.close()


async def _vote(founder: Store, name: str) -> None:
    async with asyncio.timeout(WITHIN):
        while name not in founder.voters:
            try:
                await founder.add_voter(name)
            except Error:
                await asyncio.sleep(0.05)


def run(test: Callable[[Path], Any], folder: Path) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test(folder)

    asyncio.run(bounded())


def others(made: Group, store: Store) -> list[Store]:
    return [other for other in made.stores if other is not store]


def note_key(keys: list[str], applied: Applied) -> None:
    keys.append(applied.changes[0].key)


def note_cast(casts: list[tuple[str, dict[str, Any]]], member: str, body: dict[str, Any]) -> None:
    casts.append((member, body))
