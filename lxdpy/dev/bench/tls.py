"""What TLS costs: the adapter that accepts any client's certificate, beside the standard library's server.

Both serve HTTP by aiohttp on loopback, each in a process of its own. A request is counted by the server's
processor time, as the client has the greater part of the work.
"""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from aiohttp import ClientSession, TCPConnector, web

from cluster.tls.certificates import KeyPair, make
from cluster.tls.openssl import Adapter
from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.load import rate
from lxdpy.dev.bench.step import Scale

MEASURES = (
    Measure("tls-rate", "TLS: requests a second of the server's processor", "/s"),
    Measure("tls-rate-stdlib", "the same by the standard library's (goal: at most 1.25 of ours)", "/s"),
    Measure("tls-bulk", "TLS: a large answer (goal 200)", "MB/s"),
    Measure("tls-bulk-stdlib", "the same by the standard library's", "MB/s"),
)
SERVERS = {"adapter": "", "stdlib": "-stdlib"}  # and how their measures' names end
SMALL = b"x" * 2000  # bytes, of an answer
LARGE = 64 << 20
PIECE = b"x" * (1 << 18)  # as files are sent
AT_ONCE = 32
TICKS = os.sysconf("SC_CLK_TCK")  # a second


def prepared(folder: Path) -> None:
    folder.mkdir()
    certificate, key = make("bench")
    keys(folder).certificate.write_text(certificate)
    keys(folder).key.write_text(key)


def keys(folder: Path) -> KeyPair:
    return KeyPair(folder / "server.crt", folder / "server.key")


async def measured(folder: Path, scale: Scale) -> Mapping[str, Sequence[Sequence[float]]]:
    """Samples by measure, a block a turn. The folder is to be made."""
    prepared(folder)
    found: dict[str, list[Sequence[float]]] = {measure.name: [] for measure in MEASURES}
    for _ in range(scale.turns):
        for kind, end in SERVERS.items():
            with served(folder, kind) as (pid, port):
                found[f"tls-rate{end}"].append([await requests(pid, port, scale.abreast * 2)])
                found[f"tls-bulk{end}"].append([await asyncio.to_thread(bulk, port)])
    return found


@contextmanager
def served(folder: Path, kind: str) -> Iterator[tuple[int, int]]:
    """Its process and its port."""
    words = [sys.executable, "-m", "lxdpy.dev.bench.tls", str(folder), kind]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def requests(pid: int, port: int, count: int) -> float:
    """How many a second of the server's processor time."""
    async with ClientSession(connector=TCPConnector(ssl=trusting(), limit=AT_ONCE)) as client:

        async def one(_: int) -> None:
            async with client.get(f"https://127.0.0.1:{port}/small") as reply:
                await reply.read()

        await rate(one, range(AT_ONCE), AT_ONCE)  # connects
        before = processor(pid)
        await rate(one, range(count), AT_ONCE)
        return count / (processor(pid) - before)


def bulk(port: int) -> float:
    """10^6 bytes a second."""
    with socket.create_connection(("127.0.0.1", port)) as plain, trusting().wrap_socket(plain) as end:
        began = time.perf_counter()
        end.sendall(b"GET /large HTTP/1.1\r\nHost: bench\r\n\r\n")
        missing, piece = LARGE, bytearray(len(PIECE))
        while missing > 0:  # the head counts too
            missing -= end.recv_into(piece)
        return LARGE / 1e6 / (time.perf_counter() - began)


def trusting() -> ssl.SSLContext:
    """Of a client that takes any server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def processor(pid: int) -> float:
    """Seconds of it that the process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / TICKS


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/small":
        return web.Response(body=SMALL)
    reply = web.StreamResponse(headers={"Content-Length": str(LARGE)})
    await reply.prepare(request)
    for _ in range(LARGE // len(PIECE)):
        await reply.write(PIECE)
    return reply


async def serve(folder: Path, kind: str) -> None:
    """Until standard input ends; the port is printed."""
    pair = keys(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    chosen = context if kind == "stdlib" else cast(ssl.SSLContext, Adapter(pair))
    server = await asyncio.get_running_loop().create_server(
        web.Server(answer, access_log=None), "127.0.0.1", 0, ssl=chosen
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
