"""Operations in a cluster: found, listed and waited for at any member."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from cluster.ids import operation_id
from lxdpy.daemon.context import Daemon
from lxdpy.resources.certificates.model import CERTIFICATES, Certificate
from lxdpy.resources.operations import handlers, registry
from lxdpy.resources.operations.handlers import internal, routes
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest import forward
from lxdpy.rest.websocket import Sockets
from tests.lxdpy.fakes import Local
from tests.lxdpy.resources.operations.test_operations import RESOURCES, nothing, run
from tests.lxdpy.rest.members import Members, members
from tests.patience import WITHIN, eventually


class Tokens:
    """Two rows."""

    def __init__(self) -> None:
        self.rows = {id: self.view(id) for id in (operation_id("0" * 12), operation_id("1" * 12))}

    def view(self, id: str) -> OperationView:
        return OperationView(
            id=id, kind="token", description="Executing operation", created_at="2026", updated_at="2026"
        )

    def find(self, state: Any, id: str) -> OperationView | None:
        return self.rows.get(id)

    def all(self, state: Any) -> list[OperationView]:
        return list(self.rows.values())

    async def cancel(self, id: str) -> None:
        del self.rows[id]


def test_tokens_are_operations_of_every_member(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        tokens = daemon.operations.replicated = Tokens()
        first, second = tokens.rows
        row = (await client.ask("GET", f"/1.0/operations/{first}"))["metadata"]
        assert (row["class"], row["status"]) == ("token", "Running")
        assert (await client.ask("DELETE", f"/1.0/operations/{first}"))["error_code"] == 0
        listed = (await client.ask("GET", "/1.0/operations"))["metadata"]
        assert listed == {"running": [f"/1.0/operations/{second}"]}

    run(tmp_path, check)


def cluster(root: Path, check: Callable[[Members], Awaitable[None]]) -> None:
    async def main() -> None:
        async with members(root, [routes, internal]) as made:
            await check(made)
            for member in made.all:
                for operation in member.daemon.operations.all():
                    if operation.task is not None:
                        operation.task.cancel()

    asyncio.run(main())


def test_any_member_finds_lists_and_waits_for_an_operation(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        gate = asyncio.Event()

        async def work(operation: Operation) -> None:
            await gate.wait()

        far = made.all[1].daemon.operations.start("Creating instance", RESOURCES, work, project="default")
        _, answer = await made.ask(0, "GET", f"/1.0/operations/{far.id}")
        assert answer["metadata"]["location"] == "n2"
        _, answer = await made.ask(0, "GET", "/1.0/operations")
        assert answer["metadata"] == {"running": [f"/1.0/operations/{far.id}"]}
        waiting = asyncio.ensure_future(made.ask(0, "GET", f"/1.0/operations/{far.id}/wait"))
        await asyncio.sleep(0.05)
        gate.set()
        assert (await waiting)[1]["metadata"]["status"] == "Success"

    cluster(tmp_path, check)


def test_a_list_does_not_wait_for_a_member_that_died(tmp_path: Path, monkeypatch: Any) -> None:
    for limit in ("CONNECT", "CONNECT_OFFLINE", "LOST_AFTER"):
        monkeypatch.setattr(forward, limit, 3 * WITHIN)
    monkeypatch.setattr(handlers, "PEER_ANSWERS_WITHIN", 3 * WITHIN)

    async def check(made: Members) -> None:
        here = made.all[0].daemon.operations.start("Creating instance", RESOURCES, nothing)
        await made.all[1].stop()
        async with asyncio.timeout(WITHIN):
            _, answer = await made.ask(0, "GET", "/1.0/operations")
        assert answer["metadata"] == {"success": [f"/1.0/operations/{here.id}"]}

    cluster(tmp_path, check)


def test_a_link_that_comes_back_brings_what_was_missed(tmp_path: Path) -> None:
    async def check(_client: Local, daemon: Daemon) -> None:
        made = daemon.operations.start("Creating instance", RESOURCES, nothing)
        await made.wait(WITHIN)
        store: Any = daemon.store
        store.sent.clear()
        store.link("f" * 12, True)
        assert [msgspec.json.decode(cast["event"])["metadata"]["status"] for cast in store.sent] == [
            "Success"
        ]

    run(tmp_path, check)


def test_the_end_of_an_operation_is_heard_elsewhere_though_casts_get_lost(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(registry, "AGAIN", (0.05, 0.1))

    async def check(made: Members) -> None:
        near, far = made.all[0].store, made.all[1]
        near.peers.clear()  # casts get lost
        heard: list[bytes] = []

        def hear(_type: str, _project: str, text: bytes) -> None:
            heard.append(text)

        monkeypatch.setattr(far.daemon.hub, "_deliver", hear)
        await made.all[0].daemon.operations.start("Creating instance", RESOURCES, nothing).wait(WITHIN)
        near.peers.append(far.store)
        await eventually(lambda: heard)
        await asyncio.sleep(0.2)  # the second cast of it comes as well
        assert [msgspec.json.decode(text)["metadata"]["status"] for text in heard] == ["Success"]

    cluster(tmp_path, check)


def test_a_stranger_waits_with_a_secret_of_the_operation_only(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        async def work(operation: Operation) -> None:
            await asyncio.sleep(60)

        sockets = Sockets(["0", "control"])
        far = made.all[1].daemon.operations.start("Executing command", RESOURCES, work, sockets=sockets)
        for query, status in (("", 403), ("&secret=wrong", 403), (f"&secret={sockets.fds['0']}", 200)):
            path = f"/1.0/operations/{far.id}/wait?timeout=0{query}"
            assert (await made.ask(0, "GET", path, None, made.client))[0] == status
        assert (await made.ask(0, "GET", f"/1.0/operations/{far.id}", None, made.client))[0] == 403
        unknown = f"/1.0/operations/{far.id[:-1]}{'1' if far.id[-1] == '0' else '0'}/wait"
        status, answer = await made.ask(0, "GET", unknown, None, made.client)
        assert (status, answer["error"]) == (403, "not authorized"), "whether it is there is not told"

    cluster(tmp_path, check)


def test_a_restricted_client_handles_the_operations_of_its_projects_only(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        async def work(operation: Operation) -> None:
            await asyncio.sleep(60)

        member = made.all[0]
        fingerprint = made.client.fingerprint()
        row = Certificate(fingerprint, made.client.pem(), restricted=True, projects=("p",))
        member.store.put(CERTIFICATES, fingerprint, row)
        tokens = member.daemon.operations.replicated = Tokens()
        start = member.daemon.operations.start
        mine = start("Creating instance", RESOURCES, work, project="p", may_cancel=True)
        theirs = start("Creating instance", RESOURCES, work, project="default", may_cancel=True)
        _, answer = await made.ask(0, "GET", "/1.0/operations?project=p", None, made.client)
        assert answer["metadata"] == {"running": [f"/1.0/operations/{mine.id}"]}
        for id, status in ((theirs.id, 404), (list(tokens.rows)[1], 404), (mine.id, 200)):
            for method in ("GET", "DELETE"):
                got = await made.ask(0, method, f"/1.0/operations/{id}", None, made.client)
                assert got[0] == status, (method, got)
        assert len(tokens.rows) == 2

    cluster(tmp_path, check)
