import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import Invalid, NotFound
from cluster.ids import operation_id
from lxdpy.daemon.context import Daemon
from lxdpy.resources.operations import registry
from lxdpy.resources.operations.handlers import internal, routes
from lxdpy.resources.operations.operation import Operation
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving
from tests.patience import WITHIN, eventually

RESOURCES = {"instances": ["/1.0/instances/c1"]}


def run(root: Path, check: Callable[[Local, Daemon], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = local_daemon(root, LocalStore(), tasks=tasks)
            async with serving(daemon, routes, internal) as client:
                await check(client, daemon)
            for operation in daemon.operations.all():
                if operation.task is not None:
                    operation.task.cancel()

    asyncio.run(main())


def events_of(daemon: Daemon) -> list[Any]:
    """What the hub is told from now on."""
    told: list[Any] = []
    daemon.hub.publish = lambda _type, view, **_: told.append(view)  # type: ignore[method-assign]
    return told


async def nothing(operation: Operation) -> None:
    """Succeeds at once."""


def test_an_operation_is_shown_as_lxd_does(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        made = daemon.operations.start("Creating instance", RESOURCES, nothing, metadata={"a": 1})
        await made.wait(WITHIN)
        row = (await client.ask("GET", f"/1.0/operations/{made.id}"))["metadata"]
        assert list(row) == [
            "id", "class", "description", "created_at", "updated_at", "status", "status_code", "resources",
            "metadata", "may_cancel", "err", "location",
        ]  # fmt: skip
        assert (row["class"], row["status"], row["status_code"]) == ("task", "Success", 200)
        assert (row["resources"], row["metadata"], row["location"]) == (RESOURCES, {"a": 1}, "none")
        assert made.id.endswith(MEMBER_ID)

    run(tmp_path, check)


def test_every_change_is_told_and_the_end_last(tmp_path: Path) -> None:
    async def check(_client: Local, daemon: Daemon) -> None:
        told = events_of(daemon)

        async def work(operation: Operation) -> None:
            for percent in range(100):
                operation.progress(fs_progress=f"{percent}%")
                await asyncio.sleep(0)
            operation.update(result=7)

        made = daemon.operations.start("Creating instance", RESOURCES, work)
        await made.wait(WITHIN)
        assert [view.status for view in told] == ["Running", "Running", "Success"]
        assert told[-1].metadata == {"fs_progress": "99%", "result": 7}

    run(tmp_path, check)


def test_progress_is_told_no_faster_than_people_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lxdpy.resources.operations.operation.PROGRESS_EVERY", 0.05)

    async def check(_client: Local, daemon: Daemon) -> None:
        told, began = events_of(daemon), time.monotonic()

        async def work(operation: Operation) -> None:
            for percent in range(30):
                operation.progress(fs_progress=f"{percent}%")
                await asyncio.sleep(0.01)

        await daemon.operations.start("Creating instance", RESOURCES, work).wait(WITHIN)
        ends = 4  # that it is there, runs, and has ended; the first progress comes at once
        assert ends < len(told) <= ends + (time.monotonic() - began) / 0.05

    run(tmp_path, check)


def test_an_error_fails_the_operation_with_its_message(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def refuse(operation: Operation) -> None:
            raise Invalid("No such image")

        made = daemon.operations.start("Creating instance", RESOURCES, refuse)
        row = (await client.ask("GET", f"/1.0/operations/{made.id}/wait?timeout=30"))["metadata"]
        assert (row["status"], row["status_code"], row["err"]) == ("Failure", 400, "No such image")

    run(tmp_path, check)


def test_a_bug_fails_one_operation_and_not_the_daemon(tmp_path: Path, caplog: Any) -> None:
    async def check(_client: Local, daemon: Daemon) -> None:
        async def fall_over(operation: Operation) -> None:
            raise ZeroDivisionError("not for users")

        made = daemon.operations.start("Creating instance", RESOURCES, fall_over)
        await made.wait(WITHIN)
        assert made.status_code == 400
        assert "not for users" not in made.err
        assert await daemon.operations.start("Deleting instance", RESOURCES, nothing).wait(WITHIN)

    run(tmp_path, check)
    assert "not for users" in caplog.text


def test_cancelling_stops_the_work_if_it_may_be(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        undone = []

        async def work(operation: Operation) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                undone.append(True)

        may = daemon.operations.start("Downloading image", {}, work, may_cancel=True)
        may_not = daemon.operations.start("Creating instance", {}, work)
        await asyncio.sleep(0)
        assert (await client.ask("DELETE", f"/1.0/operations/{may.id}"))["error_code"] == 0
        await may.wait(WITHIN)
        assert (may.shown().status, undone) == ("Cancelled", [True])
        answer = await client.ask("DELETE", f"/1.0/operations/{may_not.id}")
        assert (answer["error_code"], answer["error"]) == (400, "This operation can't be cancelled")

    run(tmp_path, check)


def test_what_is_cancelled_again_undoes_itself_in_peace(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        undone, may_end = [], asyncio.Event()

        async def work(operation: Operation) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await may_end.wait()
                undone.append(True)

        made = daemon.operations.start("Creating instance", {}, work, may_cancel=True)
        await asyncio.sleep(0)
        assert (await client.ask("DELETE", f"/1.0/operations/{made.id}"))["error_code"] == 0
        again = await client.ask("DELETE", f"/1.0/operations/{made.id}")
        assert (again["error_code"], again["error"]) == (400, "Only running operations can be cancelled")
        may_end.set()
        await made.wait(10)
        assert (made.shown().status, undone) == ("Cancelled", [True])

    run(tmp_path, check)


def test_the_end_of_the_daemon_ends_its_operations(tmp_path: Path) -> None:
    async def main() -> None:
        started: list[Operation] = []

        async def work(operation: Operation) -> None:
            await asyncio.sleep(60)

        with pytest.raises(ExceptionGroup):
            await begin_and_fail(work, started)
        assert [operation.status_code for operation in started] == [401]

    async def begin_and_fail(work: registry.Work, started: list[Operation]) -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = local_daemon(tmp_path, LocalStore(), tasks=tasks)
            started.append(daemon.operations.start("Creating instance", RESOURCES, work))
            await asyncio.sleep(0.01)
            raise RuntimeError("stop")

    asyncio.run(main())


def test_an_id_is_started_once(tmp_path: Path) -> None:
    async def check(_client: Local, daemon: Daemon) -> None:
        count = []

        async def work(operation: Operation) -> None:
            count.append(1)

        id = operation_id(MEMBER_ID)
        first = daemon.operations.start("Creating instance", RESOURCES, work, id=id)
        assert daemon.operations.start("Creating instance", RESOURCES, work, id=id) is first
        await first.wait(WITHIN)
        assert count == [1]

    run(tmp_path, check)


def test_an_operation_whose_row_is_on_its_way_is_waited_for(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        id = operation_id(MEMBER_ID)
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: daemon.operations.start("Creating instance", RESOURCES, nothing, id=id))
        assert (await client.ask("GET", f"/1.0/operations/{id}"))["metadata"]["id"] == id

    run(tmp_path, check)


def test_an_operation_that_never_comes_is_not_found(tmp_path: Path, monkeypatch: Any) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        with pytest.raises(NotFound):
            await daemon.operations.get(operation_id(MEMBER_ID), patience=0.05)
        for id in (operation_id("f" * 12), "nonsense"):
            answer = await client.ask("GET", f"/1.0/operations/{id}")
            assert (answer["error_code"], answer["error"]) == (404, "Operation not found")

    run(tmp_path, check)


def test_an_operation_that_a_daemon_takes_up_once_it_has_caught_up_is_waited_for(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        id, looks = operation_id(MEMBER_ID), [True, True, False]

        def is_early() -> bool:
            if len(looks) == 1:
                daemon.operations.start("Starting instance", RESOURCES, nothing, id=id)
            return looks.pop(0)

        daemon.operations.is_early = is_early
        assert (await daemon.operations.get(id, patience=0.01)).id == id
        looks += [True, False]
        with pytest.raises(NotFound):
            await daemon.operations.get(operation_id(MEMBER_ID), patience=0.01)

    run(tmp_path, check)


def test_a_finished_operation_is_forgotten_and_then_not_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        made = daemon.operations.start("Creating instance", RESOURCES, nothing)
        await made.wait(WITHIN)
        assert (await client.ask("GET", f"/1.0/operations/{made.id}"))["error_code"] == 0
        monkeypatch.setattr(registry, "KEPT", 0.01)
        made = daemon.operations.start("Creating instance", RESOURCES, nothing)
        await made.wait(WITHIN)
        await eventually(lambda: made not in daemon.operations.all())
        async with asyncio.timeout(WITHIN):
            with pytest.raises(NotFound):
                await daemon.operations.get(made.id, patience=2 * WITHIN)
        assert (await client.ask("GET", f"/1.0/operations/{made.id}"))["error_code"] == 404

    run(tmp_path, check)


def test_a_wait_ends_with_its_timeout_and_says_how_it_stands(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            await asyncio.sleep(60)

        made = daemon.operations.start("Creating instance", RESOURCES, work)
        row = (await client.ask("GET", f"/1.0/operations/{made.id}/wait?timeout=0"))["metadata"]
        assert row["status"] == "Running"
        answer = await client.ask("GET", f"/1.0/operations/{made.id}/wait?timeout=soon")
        assert answer["error_code"] == 400

    run(tmp_path, check)


def test_operations_are_listed_by_status(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            await asyncio.sleep(60)

        assert (await client.ask("GET", "/1.0/operations"))["metadata"] == {}
        done = daemon.operations.start("Creating instance", RESOURCES, nothing, project="default")
        busy = daemon.operations.start("Creating instance", RESOURCES, work)
        daemon.operations.start("Creating instance", RESOURCES, work, project="other")
        await done.wait(WITHIN)
        assert (await client.ask("GET", "/1.0/operations"))["metadata"] == {
            "running": [f"/1.0/operations/{busy.id}"],
            "success": [f"/1.0/operations/{done.id}"],
        }
        rows = (await client.ask("GET", "/1.0/operations?recursion=1"))["metadata"]
        assert rows["success"] == [msgspec.to_builtins(done.shown())]

    run(tmp_path, check)
