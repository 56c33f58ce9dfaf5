"""Very many clients of one member at the same time: programs and consoles that they are attached to.

All are open before any of them says something; then all do, and all end. Meanwhile somebody else asks for
/1.0 (`probe`), and is not to wait.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, UnixConnector, WSMsgType

from lxdpy.dev.bench.daemons import LXDPY
from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.load import Refused, rate
from lxdpy.dev.bench.peer import PREFIX, Peer
from lxdpy.dev.bench.probe import probed
from lxdpy.dev.bench.step import Scale, Step

OPENING = 32  # at a time
VIEWERS = 10  # of one console, if the daemon lets it be shared
WITHIN = 120.0  # seconds for all to have opened, and for all to have answered
PROGRAM = {"command": ["cat"], "interactive": False, "wait-for-websocket": True}
CONSOLE = {"type": "console", "width": 80, "height": 24}

Sockets = dict[str, ClientWebSocketResponse]


class Crowd:
    """Clients of one daemon; what they opened is closed with the block."""

    def __init__(self, http: ClientSession) -> None:
        self._http = http
        self.attached: list[tuple[str, Sockets]] = []

    async def attach(self, url: str, body: Mapping[str, Any]) -> None:
        async with self._http.post(f"http://lxd{url}", json=body) as answer:
            made = await answer.json()
        if made["type"] != "async":
            raise Refused(f"POST {url}: {made['error']}")
        operation, fds = made["operation"], made["metadata"]["metadata"]["fds"]
        names = [name for name in fds if name != "control"] + ["control"]
        sockets = {name: await self._socket(operation, fds[name]) for name in names}
        self.attached.append((operation, sockets))

    async def _socket(self, operation: str, secret: str) -> ClientWebSocketResponse:
        address = f"http://lxd{operation}/websocket?secret={secret}"
        return await self._http.ws_connect(address, max_msg_size=0, compress=0)

    async def all_say(self, text: bytes) -> None:
        await asyncio.gather(*(sockets["0"].send_bytes(text) for _, sockets in self.attached))

    async def all_hear(self, text: bytes, name: str) -> None:
        """Until each has got it through its socket of that name."""
        await asyncio.gather(*(heard(sockets[name], text) for _, sockets in self.attached))

    async def end(self, name: str) -> None:
        """Close that socket of all, and read what is left until the other side is done."""
        await asyncio.gather(*(ended(sockets, name) for _, sockets in self.attached))


async def heard(socket: ClientWebSocketResponse, text: bytes) -> None:
    got = b""
    while text not in got:
        message = await socket.receive(WITHIN)
        if message.type is not WSMsgType.BINARY:
            raise Refused(f"{text!r} was to come, and came {got!r}")
        got += message.data


async def ended(sockets: Sockets, name: str) -> None:
    if name == "0":
        await sockets[name].send_str("")
    else:
        await sockets[name].close()
    for socket in sockets.values():
        with suppress(ConnectionResetError):  # a ping is answered to who has gone already
            while not socket.closed:
                await socket.receive(WITHIN)


@asynccontextmanager
async def crowd(daemon: Path) -> AsyncIterator[Crowd]:
    """Of the daemon that listens on that socket."""
    connector = UnixConnector(str(daemon), limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=WITHIN)) as http:
        yield Crowd(http)


async def executes(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    async with AsyncExitStack() as stack:
        taken = await stack.enter_async_context(probed(peer.daemon.socket))
        clients = await stack.enter_async_context(crowd(peer.daemon.socket))

        async def attach(_: int) -> None:
            await clients.attach(f"/1.0/instances/{PREFIX}crowd-0/exec", PROGRAM)

        opened = await rate(attach, range(scale.sessions), OPENING)
        begun = time.perf_counter()
        await clients.all_say(b"here\n")
        await clients.all_hear(b"here\n", "1")
        answered = 1000 * (time.perf_counter() - begun)
        await clients.end("0")
    return {"sessions": [opened], "sessions-answer": [answered], "sessions-stall": [max(taken)]}


async def consoles(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """All see what is written to the consoles they look at."""
    urls = [f"/1.0/instances/{name}/console" for name in shown(scale) for _ in range(VIEWERS)]
    async with AsyncExitStack() as stack:
        taken = await stack.enter_async_context(probed(peer.daemon.socket))
        clients = await stack.enter_async_context(crowd(peer.daemon.socket))

        async def attach(number: int) -> None:
            await clients.attach(urls[number], CONSOLE)

        opened = await rate(attach, range(len(urls)), OPENING)
        for name in shown(scale):
            words = ["sh", "-c", "echo here >/dev/console"]
            await peer.client.done("POST", f"/1.0/instances/{name}/exec", {"command": words})
        await clients.all_hear(b"here", "0")
        await clients.end("control")
    return {"consoles": [opened], "consoles-stall": [max(taken)]}


def shown(scale: Scale) -> Iterable[str]:
    return (f"{PREFIX}crowd-{number}" for number in range(max(1, scale.consoles // VIEWERS)))


async def begin(peer: Peer, scale: Scale) -> None:
    for name in shown(scale):
        await peer.create(name)
        await peer.state_of(name, "start")


async def finish(peer: Peer, scale: Scale) -> None:
    for name in shown(scale):
        await peer.state_of(name, "stop")
        await peer.delete(name)


async def crowds(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """Consoles are shared in ours only: LXD gives each to one client."""
    found = await executes(peer, scale)
    return found | (await consoles(peer, scale) if peer.kind is LXDPY else {})


STEPS = (
    Step(
        (
            Measure("sessions", "attached programs opened, 32 at a time", "/s"),
            Measure("sessions-answer", "all attached programs answer at once", "ms"),
            Measure("sessions-stall", "GET /1.0 beside attached programs, the longest", "ms"),
            Measure("consoles", "consoles opened, 32 at a time", "/s"),
            Measure("consoles-stall", "GET /1.0 beside attached consoles, the longest", "ms"),
        ),
        crowds, heavy=True, before=begin, after=finish,
    ),
)  # fmt: skip
