import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from lxdpy.daemon import instance_states
from lxdpy.daemon.instance_states import InstanceStates
from lxdpy.host.lxc.runtime import STOPPED, ContainerState
from lxdpy.resources.instances.model import INSTANCES, Instance, Status
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import LocalStore, local_daemon
from tests.lxdpy.resources.instances.scene import FakeRuntime, instance


class Host(NamedTuple):
    store: LocalStore
    runtime: FakeRuntime
    states: InstanceStates

    def row(self, name: str, status: Status = "Running", **known: Any) -> Instance:
        row = instance(self.store, name, status, **known)
        self.runtime.states[name] = ContainerState(status, 7) if status != "Stopped" else STOPPED  # type: ignore[arg-type]
        return row

    def shown(self, row: Instance) -> tuple[str, int, int]:
        """Status, pid and number of processes."""
        found = msgspec.json.decode(self.states.shown(row))
        return found["status"], found["pid"], found["processes"]


@asynccontextmanager
async def host(root: Path) -> AsyncIterator[Host]:
    store, runtime, states = LocalStore(), FakeRuntime(), InstanceStates()
    store.run(CreateDefaults())
    async with asyncio.TaskGroup() as tasks:
        states.daemon = local_daemon(root, store, tasks=tasks, runtime=cast(Any, runtime), states=states)
        store.on_cast(states.heard)
        yield Host(store, runtime, states)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_states, "AFTER_CHANGE", (0.0,))


def test_a_list_looks_once_a_second_and_a_question_for_one_always(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            rows = [here.row("c1"), here.row("c2")]
            await here.states.fresh(rows)
            here.runtime.processes = 5
            await here.states.fresh(rows)
            assert here.runtime.looks == [["c1", "c2"]]
            assert here.shown(rows[0]) == ("Running", 7, 1)
            await here.states.live(rows[:1])
            assert [here.shown(row)[2] for row in rows] == [5, 1]

    asyncio.run(go())


def test_a_list_after_the_second_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            row = here.row("c1")
            await here.states.fresh([row])
            monkeypatch.setattr(instance_states, "FRESH_FOR", -1.0)
            await here.states.fresh([row])
            assert here.runtime.looks == [["c1"], ["c1"]]

    asyncio.run(go())


def test_a_list_of_many_looks_only_at_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_states, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(instance_states, "FRESH_FOR", -1.0)

    async def go() -> None:
        async with host(tmp_path) as here:
            rows = [here.row(f"c{number}") for number in range(3)]
            await here.states.live(rows)
            await here.states.fresh([*rows, here.row("c3")])
            assert here.runtime.looks[1:] == [["c3"]]
            await here.states.fresh(rows[:2])
            assert here.runtime.looks[2:] == [["c0", "c1"]]

    asyncio.run(go())


def test_a_frozen_instance_is_not_shown_as_it_was_before(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            await here.states.fresh([here.row("c1")])
            frozen = here.row("c1", "Frozen")
            here.states.changed(frozen)
            await here.states.fresh([frozen])
            assert here.shown(frozen)[0] == "Frozen"

    asyncio.run(go())


def test_the_other_members_are_told_of_a_change_and_show_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as other:
            async with host(tmp_path) as owner:
                owner.store.peers.append(other.store)
                row = owner.row("c1")
                assert other.shown(row) == ("Running", 0, 0), "nothing is known yet"
                owner.states.changed(row)
            assert other.shown(row) == ("Running", 7, 1)
            assert other.shown(msgspec.structs.replace(row, status="Stopped"))[:2] == ("Stopped", 0)

    asyncio.run(go())


def test_instances_that_change_at_one_time_are_looked_at_together(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            rows = [here.row(f"c{number}") for number in range(20)]
            for row in rows:
                here.states.changed(row)
        looks = here.runtime.looks
        assert sorted(name for look in looks for name in look) == sorted(row.name for row in rows)
        assert len(looks) < len(rows)

    asyncio.run(go())


def test_an_address_is_waited_for_where_there_is_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_states, "TOGETHER", 0.001)
    monkeypatch.setattr(instance_states, "AFTER_CHANGE", (0.0, 0.1))

    async def go() -> None:
        async with host(tmp_path) as here:
            here.states.changed(here.row("c1"))
            here.states.changed(here.row("c2", devices={"eth0": {"type": "nic", "nictype": "p2p"}}))
        assert sorted(name for look in here.runtime.looks for name in look) == ["c1", "c2", "c2"]

    asyncio.run(go())


def test_what_ended_meanwhile_keeps_what_was_last_seen(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            row = here.row("c1")
            await here.states.live([row])
            del here.runtime.states["c1"]
            await here.states.live([row])
            assert here.shown(row) == ("Running", 7, 1)

    asyncio.run(go())


def test_states_of_instances_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    async def go() -> None:
        async with host(tmp_path) as here:
            row = here.row("c1")
            await here.states.refresh()
            assert [list(message["states"]) for message in here.store.sent] == [["uuid-c1"]]
            here.store.put(INSTANCES, row.key, None)
            await here.states.refresh()
            assert here.shown(row)[1] == 0

    asyncio.run(go())
