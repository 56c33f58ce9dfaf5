"""Three members of a Raft group with nothing else around it: for `raft`.

One is opened by whoever measures; `python -m lxdpy.dev.bench.raft_group FOLDER ID` is one of the others, says
"ready" when it has all that was acknowledged, and ends with its standard input.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from cluster.errors import Unavailable
from cluster.raft.store import Identity, Store
from cluster.state.command import Command
from cluster.state.machine import Machine
from cluster.state.table import Stored, Table
from cluster.state.txn import Txn
from cluster.tls.certificates import KeyPair, make
from cluster.tls.contexts import Contexts

NAMES = ("a", "b", "c")
LEADER = "a"
CLUSTER = "bench"


class Row(Stored, frozen=True):
    text: str = ""


TABLE = Table("rows", Row)


class Put(Command, frozen=True, tag="bench.put"):
    keys: list[str]
    text: str

    def apply(self, txn: Txn) -> None:
        for key in self.keys:
            txn.put(TABLE, key, Row(f"{key} {txn.index} {self.text}"))


def prepared(folder: Path) -> None:
    """Keys, and addresses that are free now."""
    folder.mkdir(parents=True)
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES}
    addresses = {}
    for name, listener in listeners.items():
        addresses[name] = f"127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        certificate, key = make(name)
        pair = keys(folder, name)
        pair.certificate.write_text(certificate)
        pair.key.write_text(key)
    (folder / "addresses").write_bytes(msgspec.json.encode(addresses))


def keys(folder: Path, name: str) -> KeyPair:
    return KeyPair(folder / f"{name}.crt", folder / f"{name}.key")


@asynccontextmanager
async def opened(folder: Path, name: str) -> AsyncIterator[Store]:
    """A store with a listener; at its first start the leader is alone."""
    addresses = msgspec.json.decode((folder / "addresses").read_bytes(), type=dict[str, str])
    contexts = Contexts(keys(folder, name))
    contexts.update({other: keys(folder, other).pem() for other in NAMES})
    store = Store(
        folder / name, Identity(CLUSTER, name), Machine([TABLE], [Put]),
        addresses=lambda: addresses, voters=[LEADER], contexts=contexts, fresh=not (folder / name).exists(),
    )  # fmt: skip
    host, port = addresses[name].split(":")
    with socket.create_server((host, int(port))) as listener:
        listener.setblocking(False)
        await store.start()
        accepting = asyncio.create_task(accept(listener, store))
        try:
            yield store
        finally:
            accepting.cancel()
            await store.stop()


async def accept(listener: socket.socket, store: Store) -> None:
    while True:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        connection.setblocking(False)
        store.adopt(connection)


def started(folder: Path, name: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "lxdpy.dev.bench.raft_group", str(folder), name]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def follow(folder: Path, name: str) -> None:
    async with opened(folder, name) as store:
        while True:
            with suppress(Unavailable):
                await store.read_index()
                break
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(follow(Path(sys.argv[1]), sys.argv[2]))
