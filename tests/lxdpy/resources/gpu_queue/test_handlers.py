import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec

from lxdpy.daemon.beat import Beat
from lxdpy.resources.gpu_queue.handlers import routes
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.instances.model import Instance, Source
from lxdpy.resources.operations.handlers import internal
from lxdpy.resources.operations.handlers import routes as operations
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon, serving
from tests.lxdpy.resources.gpus.scene import add, gpu

ONE = f"10000000-0000-4000-8000-{MEMBER_ID}"
TWO = f"20000000-0000-4000-8000-{MEMBER_ID}"


def turn(id: str, name: str, since: int, **known: Any) -> Turn:
    row = Instance("default", name, name, "", config={"limits.gpu": "2"}, source=Source("none"))
    return Turn(id, "default", instances=(row,), since=since, asked_at=1_800_000_000.0, **known)


def ask(folder: Path, *wanted: tuple[str, str], more: tuple[Turn, ...] = ()) -> list[Any]:
    """The answers to these, of a member with one free GPU and two that wait for two each."""

    async def main() -> list[Any]:
        store = LocalStore()
        store.run(CreateDefaults())
        add(store, gpu("GPU-a"))
        for one in (turn(TWO, "late", 9), turn(ONE, "first", 3, until=1_800_000_060.0), *more):
            store.put(GPU_QUEUE, one.id, one)
        async with asyncio.TaskGroup() as tasks:
            daemon = local_daemon(folder, store, tasks=tasks, beat=Beat(cast(Any, store)))
            daemon.operations.queued = Turns(daemon)
            async with serving(daemon, routes, operations, internal) as client:
                return [await client.ask(method, path) for method, path in wanted]

    return asyncio.run(main())


def test_the_queue_is_listed_in_order(tmp_path: Path) -> None:
    [listed, rows, one, none] = ask(
        tmp_path,
        ("GET", "/1.0/gpu-queue"),
        ("GET", "/1.0/gpu-queue?recursion=1"),
        ("GET", f"/1.0/gpu-queue/{TWO}"),
        ("GET", "/1.0/gpu-queue/none"),
    )
    assert listed["metadata"] == [f"/1.0/gpu-queue/{ONE}", f"/1.0/gpu-queue/{TWO}"]
    first, second = rows["metadata"]
    assert second == one["metadata"]
    assert first == {
        "id": ONE, "project": "default", "action": "create", "instances": ["first"], "gpus": 2,
        "priority": 0, "position": 1, "reason": "No member fits: none: 1 of 1 GPU free, 2 wanted",
        "kept": [], "asked_at": "2027-01-15T08:00:00Z", "until": "2027-01-15T08:01:00Z",
        "index": first["index"],
    }  # fmt: skip
    assert (second["position"], second["until"], none["error_code"]) == (2, "", 404)


def test_who_is_about_to_leave_the_queue_is_listed_with_the_reason(tmp_path: Path) -> None:
    gone = Turn("3", "default", start="default/c1", since=10)
    lost = turn("4", "c2", 11, target="n9")
    [found] = ask(tmp_path, ("GET", "/1.0/gpu-queue?recursion=1"), more=(gone, lost))
    assert [(row["id"], row["gpus"], row["reason"]) for row in found["metadata"][2:]] == [
        ("3", 0, "The instance is gone"),
        ("4", 0, "Member not found: n9"),
    ]


def test_a_start_that_is_granted_while_who_asked_is_answered_is_not_said_to_be_done(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        turns = Turns(local_daemon(tmp_path, store))
        asked = Turn(ONE, "default", start="default/c1")
        for known, status in (
            ({"status": "granted", "location": MEMBER_ID}, "Running"),
            ({"status": "done", "location": MEMBER_ID}, "Success"),
            ({"status": "done", "location": MEMBER_ID, "err": "No disk"}, "Failure"),
            ({"status": "ended", "err": "Too late"}, "Failure"),
        ):
            shown = turns.view(store.state, msgspec.structs.replace(asked, **known), None)
            assert (shown.status, shown.err) == (status, known.get("err", ""))

    asyncio.run(main())


def test_the_operation_of_who_waits_is_any_members(tmp_path: Path) -> None:
    path = f"/1.0/operations/{TWO}"
    shown, listed, waited, gone = ask(
        tmp_path,
        ("GET", path),
        ("GET", "/1.0/operations"),
        ("GET", f"{path}/wait?timeout=0"),
        ("DELETE", path),
    )
    row = shown["metadata"]
    assert (row["status"], row["metadata"]["position"], row["may_cancel"]) == ("Running", 2, True)
    assert "number 2" in row["metadata"]["queue_progress"]
    assert row["resources"]["instances"] == ["/1.0/instances/late"]
    assert path in listed["metadata"]["running"]
    assert waited["metadata"]["status"] == "Running"
    assert gone["type"] == "sync"


def test_who_was_cancelled_is_told_so_for_a_while(tmp_path: Path) -> None:
    path = f"/1.0/operations/{TWO}"
    _, ended, again = ask(tmp_path, ("DELETE", path), ("GET", f"{path}/wait"), ("DELETE", path))
    assert (ended["metadata"]["status_code"], ended["metadata"]["err"]) == (401, "Operation cancelled")
    assert again["error_code"] == 400
