"""A peer: one kind of daemon, as a single member or as a cluster, furnished alike for all kinds."""

import asyncio
import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lxdpy.dev.bench.daemons import Daemon, Kind, end_all
from lxdpy.dev.bench.load import Client, request, timed
from lxdpy.dev.members import DAEMON
from lxdpy.dev.netns import Net, run

PREFIX = f"bench-{os.getpid()}-"  # of the names of instances, and so of control groups: no other run's
IMAGE = "busybox"  # the alias
ROOT = {"type": "disk", "path": "/", "pool": "default"}


class Peer:
    """Daemons `n1` …, all files below `state`. Members are counted from 0."""

    def __init__(self, kind: Kind, state: Path, members: int) -> None:
        self.kind = kind
        self.state = state
        self.net = Net(state.name, tuple(f"n{number}" for number in range(1, members + 1)))
        self.daemons = [Daemon(kind, self.net, name, state) for name in self.net.members]
        self.clients = [Client(daemon.socket) for daemon in self.daemons]
        self.joining: list[float] = []  # seconds each join took
        self.version = ""
        self.server_cpu = 0.0  # seconds, as of the last `spent`

    @property
    def client(self) -> Client:
        return self.clients[0]

    @property
    def daemon(self) -> Daemon:
        return self.daemons[0]

    async def up(self, image: bytes = b"") -> bytes:
        """Start, furnish and join all; `image` is built if there is none, and given back."""
        self.state.mkdir(mode=0o711, parents=True)
        self.net.up()
        for daemon in self.daemons:
            daemon.start()
        await self._furnish()
        image = await self._give(image) if image else await self._build()
        if len(self.daemons) > 1:
            await self._found()
        for number in range(1, len(self.daemons)):
            await self._join(number)
        return image

    def down(self) -> None:
        """Take all away. Idempotent."""
        end_all(self.net, self.state, PREFIX)
        shutil.rmtree(self.state, ignore_errors=True)

    def spent(self) -> float:
        """Seconds of processor time of all daemons since this was asked last."""
        before, self.server_cpu = self.server_cpu, sum(daemon.cpu() for daemon in self.daemons)
        return self.server_cpu - before

    async def create(self, name: str, target: str = "") -> Any:
        """On the member named `target`, or wherever it is put."""
        body = {"name": name, "type": "container", "source": {"type": "image", "alias": IMAGE}}
        query = f"?target={target}" if target else ""
        return await self.client.done("POST", f"/1.0/instances{query}", body)

    async def state_of(self, name: str, action: str) -> Any:
        body = {"action": action, "timeout": 30, "force": action == "stop"}
        return await self.client.done("PUT", f"/1.0/instances/{name}/state", body)

    async def execute(self, name: str, member: int = 0) -> None:
        """Run `true`, through that member."""
        body = {"command": ["/bin/true"], "interactive": False, "wait-for-websocket": False}
        await self.clients[member].done("POST", f"/1.0/instances/{name}/exec", body)

    async def delete(self, name: str) -> Any:
        return await self.client.done("DELETE", f"/1.0/instances/{name}")

    async def reconnect(self) -> None:
        """After a restart: nothing is kept of connections to the one before."""
        self.clients = [Client(daemon.socket) for daemon in self.daemons]

    async def _furnish(self) -> None:
        client = self.client
        self.version = (await client.ask("GET", "/1.0"))["environment"]["server_version"]
        if "default" not in [url.rpartition("/")[2] for url in await client.ask("GET", "/1.0/storage-pools")]:
            await client.ask("POST", "/1.0/storage-pools", {"name": "default", "driver": "dir"})
        await client.ask("PATCH", "/1.0/profiles/default", {"devices": {"root": ROOT}})

    async def _build(self) -> bytes:
        """By our own command line."""
        environment = self.daemon.environment
        command = self.net.enter(self.daemon.name, str(DAEMON.parent / "lxdpy"), "image", "build", IMAGE)
        await asyncio.to_thread(run, *command, environment=environment)
        target = (await self.client.ask("GET", f"/1.0/images/aliases/{IMAGE}"))["target"]
        return await self.client.raw(request("GET", f"/1.0/images/{target}/export"))

    async def _give(self, image: bytes) -> bytes:
        made = await self.client.done("POST", "/1.0/images", image, X_LXD_filename="busybox.tar.gz")
        alias = {"name": IMAGE, "target": made["fingerprint"]}
        await self.client.ask("POST", "/1.0/images/aliases", alias)
        return image

    async def _found(self) -> None:
        """Make the first member a cluster's."""
        address = {"config": {"core.https_address": self.daemon.address}}
        await self.client.ask("PATCH", "/1.0", address)
        await self.client.done("PUT", "/1.0/cluster", {"server_name": self.daemon.name, "enabled": True})

    async def _join(self, number: int) -> None:
        daemon = self.daemons[number]
        made = await self.client.done("POST", "/1.0/cluster/members", {"server_name": daemon.name})
        body = {"server_name": daemon.name, "enabled": True, "server_address": daemon.address}
        body |= await self._credentials(made)
        self.joining.append(await timed(self.clients[number].done("PUT", "/1.0/cluster", body)))

    async def _credentials(self, made: dict[str, Any]) -> dict[str, Any]:
        """The token as each kind wants to be given it; LXD's own client resolves it before it asks."""
        words = {"serverName": "server_name", "expiresAt": "expires_at"}
        token = {words.get(key, key): value for key, value in made.items()}
        text = base64.b64encode(json.dumps(token).encode()).decode()
        if not self.kind.token_is_password:
            return {"cluster_token": text}
        info = (await self.client.ask("GET", "/1.0"))["environment"]
        pool = {"entity": "storage-pool", "name": "default", "key": "source", "value": ""}
        return {
            "cluster_address": made["addresses"][0], "cluster_certificate": info["certificate"],
            "cluster_password": text, "member_config": [pool],
        }  # fmt: skip
