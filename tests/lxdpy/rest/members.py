"""Members on loopback ports with mutual TLS between them: all but Raft. Their states hold the same
members.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import msgspec

from cluster.membership.model import CLUSTER, MEMBERS, THE_CLUSTER, Cluster, Member
from cluster.tls.certificates import KeyPair, make
from cluster.tls.contexts import pinned_client
from cluster.tls.openssl import Adapter
from lxdpy.daemon.context import Daemon
from lxdpy.rest.app import Api
from lxdpy.rest.forward import Forwarder
from lxdpy.rest.route import Routes
from tests.lxdpy.fakes import LocalStore, local_daemon

NAMES = ("n1", "n2", "n3")


@dataclass
class Fake:
    """One member: what a test may look at or break."""

    name: str
    store: LocalStore
    keys: KeyPair
    daemon: Daemon
    api: Api
    tls: Adapter
    server: asyncio.Server | None = None
    port: int = 0
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    async def stop(self) -> None:
        """Accept nothing more: whoever calls is refused."""
        if self.server is not None:
            self.server.close()


@dataclass
class Members:
    all: list[Fake]
    pinned: str  # the cluster's certificate
    client: KeyPair  # of somebody outside
    session: aiohttp.ClientSession

    def url(self, at: int, path: str) -> str:
        return f"https://127.0.0.1:{self.all[at].port}{path}"

    async def ask(
        self, at: int, method: str, path: str, body: object = None, own: KeyPair | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """By default as member 0, hence as an admin."""
        data = None if body is None else msgspec.json.encode(body)
        context = self.context(own or self.all[0].keys)
        asked = self.session.request(method, self.url(at, path), data=data, headers=headers, ssl=context)
        async with asked as reply:
            return reply.status, msgspec.json.decode(await reply.read())

    def context(self, own: KeyPair | None) -> ssl.SSLContext:
        return pinned_client(own, self.pinned)


def key_pair(folder: Path, name: str) -> KeyPair:
    certificate, key = make(name)
    pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_text(certificate)
    pair.key.write_text(key)
    return pair


@asynccontextmanager
async def members(folder: Path, routes: Sequence[Routes], count: int = 2) -> AsyncIterator[Members]:
    """The client's certificate is trusted by nobody at first. Forwarding runs over real sockets."""
    cluster = key_pair(folder, "cluster")
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        made = [await _member(folder, number, tasks, routes, Adapter(cluster)) for number in range(count)]
        for fake in made:
            await _serve(fake)
            stack.push_async_callback(_end, fake)
        for fake in made:
            _introduce(fake, made, cluster)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Members(made, cluster.pem(), key_pair(folder, "client"), session)


async def _member(
    folder: Path, number: int, tasks: asyncio.TaskGroup, routes: Sequence[Routes], tls: Adapter
) -> Fake:
    name = NAMES[number]
    store = LocalStore(f"{number:012x}", founded=False)
    keys = key_pair(folder, name)

    def online(member: str) -> bool:
        return member in store.links

    forwarder, beat = Forwarder(cast(Any, store), keys, online), SimpleNamespace(online=online)
    daemon = local_daemon(folder, store, tasks=tasks, forwarder=forwarder, keys=keys, beat=beat)
    api = Api(daemon, routes)
    api.phase = "ready"
    return Fake(name, store, keys, daemon, api, tls)


async def _serve(fake: Fake) -> None:
    loop = asyncio.get_running_loop()
    fake.server = await loop.create_server(
        fake.api.server(), "127.0.0.1", 0, ssl=cast(ssl.SSLContext, fake.tls)
    )
    fake.port = fake.server.sockets[0].getsockname()[1]


def _introduce(fake: Fake, everyone: list[Fake], cluster: KeyPair) -> None:
    fake.store.put(CLUSTER, THE_CLUSTER, Cluster("c1", enabled=True, certificate=cluster.pem()))
    for other in everyone:
        fake.store.put(
            MEMBERS,
            other.store.member_id,
            Member(
                other.store.member_id, other.name, address=f"127.0.0.1:{other.port}", status="ready",
                certificate=other.keys.pem(), fingerprint=other.keys.fingerprint(),
            ),
        )  # fmt: skip
        if other is not fake:
            fake.store.links |= {other.store.member_id}
            fake.store.peers.append(other.store)


async def _end(fake: Fake) -> None:
    await fake.stop()
    await fake.daemon.forwarder.close()
