"""What a guest says of itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.guest import api
from lxdpy.resources.guest.sockets import Guest, Guests
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.ready import is_ready
from lxdpy.resources.instances.settle import settle
from lxdpy.resources.instances.spec import idmap_of
from tests.lxdpy.resources.instances.scene import FakeRuntime, house, instance, ready_store


class Request:
    """`PATCH /1.0` of the guest API."""

    def __init__(self, state: str) -> None:
        self.content = self
        self._body = json.dumps({"state": state}).encode()

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


def test_what_is_ready_again_before_its_reboot_was_noticed_stays_so(tmp_path: Path) -> None:
    async def check() -> None:
        (tmp_path / "run").mkdir()
        store, told = ready_store(), list[bool]()
        row = instance(store, "c1", "Running")
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            runtime, guests = cast(FakeRuntime, daemon.runtime), Guests()
            daemon.guests, guests.daemon = guests, daemon
            wanted = expanded(store.state, row)
            await records.save(daemon, row, Given(wanted, wanted, init=7))
            idmap = idmap_of(row, wanted[0])
            guest = Guest(daemon, row, idmap.host(0) if idmap else 0)
            guests._guests[row.volume] = guest  # as if it had a socket

            def now() -> Instance:
                return store.state.get(INSTANCES, row.key)

            async def say(state: str) -> None:
                await api._change(guest, now(), cast(Any, Request(state)))

            store.watch(lambda _: told.append(is_ready(now())))
            runtime.states["c1"] = ContainerState("Running", 7)
            await say("Ready")
            runtime.states["c1"] = ContainerState("Running", 0)  # it reboots
            saying = tasks.create_task(say("Ready"))
            runtime.states["c1"] = ContainerState("Running", 8)
            await saying
            assert told == [True, False, True], "who waits for it to be ready is told"
            await settle(daemon, row.key)
            assert is_ready(now())
            runtime.states["c1"] = ContainerState("Running", 9)  # another reboot, of which it says nothing
            await settle(daemon, row.key)
            assert not is_ready(now())

    asyncio.run(check())
