import asyncio
from pathlib import Path
from typing import Any

import msgspec

from lxdpy.resources.gpus.handlers import holder_shown, routes
from lxdpy.resources.gpus.model import GPUS, Holder
from lxdpy.rest.auth import Identity
from lxdpy.rest.route import Call
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon, serving
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu, second_member

HELD = Holder("lab/train", "gpu0", "shared", since=1_800_000_000.0, memory=8 << 30, started=True)


def _store() -> LocalStore:
    store = LocalStore()
    second_member(store)
    add(
        store,
        gpu("GPU-c", OTHER, "0000:01:00.0", HELD),
        gpu("GPU-b", MEMBER_ID, "0000:47:00.0"),
        gpu("GPU-a", MEMBER_ID, "0000:07:00.0"),
    )
    return store


def _ask(folder: Path, store: LocalStore, method: str, path: str, body: object = None) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with serving(local_daemon(folder, store), routes) as client:
            return await client.ask(method, path, body)

    return asyncio.run(ask())


def test_gpus_are_listed_by_member_and_place(tmp_path: Path) -> None:
    listed = _ask(tmp_path, _store(), "GET", "/1.0/gpus")["metadata"]
    assert listed == ["/1.0/gpus/GPU-c", "/1.0/gpus/GPU-a", "/1.0/gpus/GPU-b"]


def test_a_gpu_says_who_holds_it_and_at_which_index_that_is_true(tmp_path: Path) -> None:
    store = _store()
    shown = _ask(tmp_path, store, "GET", "/1.0/gpus/GPU-c")["metadata"]
    assert (shown["member"], shown["state"], shown["memory"]) == ("n2", "shared", 40 << 30)
    assert shown["index"] == store.state.index
    assert shown["holders"] == [
        {
            "project": "lab",
            "instance": "train",
            "device": "gpu0",
            "sharing": "shared",
            "since": "2027-01-15T08:00:00Z",
            "memory": 8 << 30,
            "started": True,
            "degraded": False,
        }
    ]


def test_a_list_can_be_filtered(tmp_path: Path) -> None:
    path = "/1.0/gpus?recursion=1&filter=state%20eq%20free%20and%20member%20eq%20none"
    listed = _ask(tmp_path, _store(), "GET", path)["metadata"]
    assert [row["uuid"] for row in listed] == ["GPU-a", "GPU-b"]


def test_a_drained_gpu_can_be_enabled_again(tmp_path: Path) -> None:
    store = _store()
    _ask(tmp_path, store, "PATCH", "/1.0/gpus/GPU-c", {"state": "drain"})
    row = store.state.get(GPUS, "GPU-c")
    assert (row.state, row.holders) == ("draining", (HELD,))
    _ask(tmp_path, store, "PATCH", "/1.0/gpus/GPU-c", {"state": "enable"})
    assert store.state.get(GPUS, "GPU-c").state == "shared"


def test_a_member_that_lags_proposes_all_the_same(tmp_path: Path) -> None:
    store = _store()
    before = store.state.index
    _ask(tmp_path, store, "PATCH", "/1.0/gpus/GPU-a", {"state": "enable"})
    assert store.state.index == before + 1


def test_what_is_neither_drain_nor_enable_is_refused(tmp_path: Path) -> None:
    for body in ({"state": "off"}, {"state": 1}, {}):
        answer = _ask(tmp_path, _store(), "PATCH", "/1.0/gpus/GPU-a", body)
        assert (answer["error_code"], "state" in answer["error"]) == (400, True)


def test_an_unknown_gpu_is_not_found(tmp_path: Path) -> None:
    for method, body in (("GET", None), ("PATCH", {"state": "drain"})):
        answer = _ask(tmp_path, _store(), method, "/1.0/gpus/GPU-x", body)
        assert (answer["error_code"], answer["error"]) == (404, "GPU not found")


def test_a_conflict_names_the_other_member(tmp_path: Path) -> None:
    store = _store()
    row = store.state.get(GPUS, "GPU-a")
    store.put(GPUS, "GPU-a", msgspec.structs.replace(row, claimed_by=OTHER))
    shown = _ask(tmp_path, store, "GET", "/1.0/gpus/GPU-a")["metadata"]
    assert (shown["state"], shown["claimed_by"]) == ("conflict", "n2")


def test_who_may_not_see_the_holder_sees_that_there_is_one() -> None:
    call: Any = object.__new__(Call)
    call.identity = Identity("tls", "abc", projects=("other",))
    shown = holder_shown(call, HELD)
    assert (shown["project"], shown["instance"], shown["device"]) == ("", "", "")
    assert (shown["sharing"], shown["memory"]) == ("shared", 8 << 30)
