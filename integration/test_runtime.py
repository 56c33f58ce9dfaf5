"""Life and death of real containers, whatever happens to the daemon, its helper or LXC's monitor."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from cluster.errors import Conflict, Uncertain
from integration.containers import PATH, alive, in_namespaces, processes, python, ran, sh, spec
from lxdpy.host.lxc import prepare
from lxdpy.host.lxc.client import ExecRequest
from lxdpy.host.lxc.runtime import Runtime, StartFailed

pytestmark = pytest.mark.root


async def eventually(wanted: str, events: list[str]) -> None:
    async with asyncio.timeout(30):
        while wanted not in events:
            await asyncio.sleep(0.005)


def recorded(runtime: Runtime) -> list[str]:
    events: list[str] = []
    runtime.on_event(lambda name, event: events.append(f"{name} {event}"))
    return events


def test_a_container_starts_and_stops_and_leaves_nothing_but_logs() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        events = recorded(runtime)
        for _ in range(2):
            init = await runtime.start_container(spec(folder))
            assert runtime.state("c1").status == "Running"
            assert runtime.state("c1").init_pid == init
            assert os.stat(f"/proc/{init}").st_uid == 1_000_000
            await runtime.kill_container("c1")
            assert runtime.state("c1").status == "Stopped"
            assert not alive(init)
        assert events == ["c1 started", "c1 stopped"] * 2
        left = {
            str(path.relative_to(folder / "lxd")) for path in (folder / "lxd").rglob("*") if path.is_file()
        }
        assert left <= {f"logs/c1/{name}" for name in ("lxc.conf", "lxc.log", "lxc.log.old", "console.log")}

    in_namespaces(scenario)


def test_what_runs_twice_or_not_at_all_is_said_clearly() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        with pytest.raises(Conflict, match="not running"):
            await runtime.exec("c1", ExecRequest(("true",)), (0, 1, 2))
        await runtime.kill_container("c1")
        await runtime.shutdown_container("c1", 1)
        await runtime.start_container(spec(folder))
        with pytest.raises(Conflict, match="already running"):
            await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_container_that_cannot_start_says_why_and_leaves_nothing() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        with pytest.raises(StartFailed, match=r"could not be started: .*No such file or directory"):
            await runtime.start_container(spec(folder, init="/no/such/init"))
        with pytest.raises(StartFailed, match="could not be started: "):
            await runtime.start_container(spec(folder, rootfs="/no/such/root"))
        assert runtime.state("c1").status == "Stopped"
        assert not runtime.paths("c1").run.exists()
        await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_clean_shutdown_is_asked_for_until_init_listens() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        late = "#!/bin/sh\nsleep 1.2\ntrap 'exit 0' PWR\nwhile :; do sleep 0.1; done\n"
        path = Path(spec(folder).rootfs, "sbin/late")
        path.write_text(late)
        path.chmod(0o755)
        await runtime.start_container(spec(folder, init="/sbin/late"))
        await runtime.shutdown_container("c1", 30)
        assert runtime.state("c1").status == "Stopped"

    in_namespaces(scenario)


def test_a_shutdown_that_is_not_heard_ends_with_its_timeout() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder, init="/bin/sleep 1000"))
        with pytest.raises(Conflict, match=r"within 1\.5 s"):
            await runtime.shutdown_container("c1", 1.5)
        assert runtime.state("c1").status == "Running"
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_frozen_container_stands_still_and_can_be_killed() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder))
        for _ in range(2):
            await runtime.freeze("c1")
        assert runtime.state("c1").status == "Frozen"
        with pytest.raises(Conflict, match="frozen"):
            await sh(runtime, "c1", "true")
        with pytest.raises(Conflict, match="frozen"):
            await runtime.shutdown_container("c1", 1)
        await runtime.unfreeze("c1")
        assert runtime.state("c1").status == "Running"
        assert await sh(runtime, "c1", "echo again") == "again\n"
        await runtime.freeze("c1")
        await runtime.kill_container("c1")
        assert runtime.state("c1").status == "Stopped"

    in_namespaces(scenario)


def test_a_reboot_from_inside_gives_a_new_init_that_can_be_entered() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        events = recorded(runtime)
        first = await runtime.start_container(spec(folder))
        await ran(runtime, "c1", ExecRequest(("reboot", "-f"), PATH))
        await eventually("c1 rebooted", events)
        assert runtime.state("c1").init_pid not in (0, first)
        assert await sh(runtime, "c1", "echo back") == "back\n"
        assert "c1 stopped" not in events
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_monitor_that_hangs_in_a_reboot_is_ended_with_its_container() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder))
        monitor = int(runtime.paths("c1").pid_file.read_text())
        os.kill(monitor, signal.SIGSTOP)
        os.kill(runtime.state("c1").init_pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while runtime.state("c1").init_pid:
                await asyncio.sleep(0.01)
            await runtime.kill_container("c1")
        assert not alive(monitor)
        await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_container_that_powers_itself_off_is_seen_to_stop() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        events = recorded(runtime)
        await runtime.start_container(spec(folder))
        await ran(runtime, "c1", ExecRequest(("poweroff", "-f"), PATH))
        await eventually("c1 stopped", events)
        assert runtime.state("c1").status == "Stopped"
        await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_monitor_that_is_killed_takes_its_container_along_and_no_group_stays() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        events = recorded(runtime)
        init = await runtime.start_container(spec(folder))
        os.kill(int(runtime.paths("c1").pid_file.read_text()), signal.SIGKILL)
        await eventually("c1 stopped", events)
        assert not alive(init)
        await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_containers_outlive_the_helper_and_its_sessions_end_in_doubt() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        init = await runtime.start_container(spec(folder))
        session = await runtime.exec("c1", ExecRequest(("sleep", "100"), PATH), (0, 1, 2))
        os.kill(runtime.helper.pid, signal.SIGKILL)
        with pytest.raises(Uncertain, match="helper died"):
            await session.wait()
        with pytest.raises(Conflict):
            session.signal(signal.SIGTERM)
        assert runtime.state("c1").init_pid == init
        assert await sh(runtime, "c1", "echo new helper") == "new helper\n"
        await runtime.kill_container("c1")

    in_namespaces(scenario)


HOLDER = """
import asyncio
from pathlib import Path
from integration.containers import TAG, spec
from lxdpy.host.lxc.runtime import Runtime

async def hold(folder):
    runtime = Runtime(folder / "lxd", tag=TAG)
    await runtime.start()
    for name in ("c1", "c2"):
        print(await runtime.start_container(spec(folder, name)), flush=True)
    await asyncio.sleep(1000)

asyncio.run(hold(Path(sys.argv[1])))
"""


def test_a_new_daemon_finds_the_containers_of_one_that_was_killed() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        spec(folder)
        holder = await asyncio.create_subprocess_exec(*python(HOLDER, folder), stdout=asyncio.subprocess.PIPE)
        assert holder.stdout
        first, second = [int(await holder.stdout.readline()) for _ in "12"]
        holder.kill()
        await holder.wait()
        os.kill(second, signal.SIGKILL)  # dies while no daemon looks
        async with asyncio.timeout(30):
            while alive(second):
                await asyncio.sleep(0.01)

        events = recorded(runtime)
        found = await runtime.reattach(["c1", "c2", "never"])
        assert (found["c1"].status, found["c1"].init_pid) == ("Running", first)
        assert found["never"].status == "Stopped"
        async with asyncio.timeout(30):
            while runtime.state("c2").status != "Stopped":
                await asyncio.sleep(0.01)
        assert await sh(runtime, "c1", "echo here") == "here\n"
        await ran(runtime, "c1", ExecRequest(("reboot", "-f"), PATH))
        await eventually("c1 rebooted", events)
        os.kill(runtime.state("c1").init_pid, signal.SIGKILL)
        await eventually("c1 stopped", events)
        assert "c1 started" not in events

    in_namespaces(scenario)


def test_a_start_is_not_taken_for_what_a_crash_left() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        starting = asyncio.create_task(runtime.start_container(spec(folder)))
        while not starting.done():
            await runtime.reattach(["c1"])
            await asyncio.sleep(0)
        assert runtime.state("c1").init_pid == await starting
        assert await sh(runtime, "c1", "echo here") == "here\n"
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_a_monitor() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        paths = runtime.paths("c1")
        paths.run.mkdir(parents=True)
        paths.pid_file.write_text(f"{os.getpid()}\n")
        assert (await runtime.reattach(["c1"]))["c1"].status == "Stopped"

    in_namespaces(scenario)


def test_twenty_containers_start_and_stop_at_once() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        names = [f"c{number}" for number in range(20)]
        spec(folder)
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(runtime.start_container(spec(folder, name)))
        assert {runtime.state(name).status for name in names} == {"Running"}
        networks = await runtime.networks(names)
        assert set(networks) == set(names)
        said = await asyncio.gather(*(sh(runtime, name, "cat /proc/sys/kernel/hostname") for name in names))
        assert [words.strip() for words in said] == names
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(runtime.kill_container(name))

    in_namespaces(scenario)


def test_a_host_without_lxc_start_starts_containers_through_the_helper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lxdpy.host.lxc.prepare.LXC_START", "/no/such/lxc-start")

    async def scenario(runtime: Runtime, folder: Path) -> None:
        events = recorded(runtime)
        await runtime.start_container(spec(folder))
        assert await sh(runtime, "c1", "echo in") == "in\n"
        await runtime.kill_container("c1")
        assert events == ["c1 started", "c1 stopped"]
        with pytest.raises(StartFailed):
            await runtime.start_container(spec(folder, init="/no/such/init"))

    in_namespaces(scenario)


SLOW = (  # what goes on in the background, in no control group yet, when who waits for it is killed
    '("$1" -c "import time; time.sleep(1)"; shift; exec "$@") & wait $!'
)


def test_a_start_that_is_given_up_early_comes_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    starter = ("/bin/sh", "-c", SLOW, "sh", sys.executable, prepare.LXC_START)
    monkeypatch.setattr("lxdpy.host.lxc.prepare.starter", lambda paths: starter)

    async def scenario(runtime: Runtime, folder: Path) -> None:
        task = asyncio.ensure_future(runtime.start_container(spec(folder)))
        async with asyncio.timeout(30):
            while len(processes(folder)) < 2:
                await asyncio.sleep(0.005)
        for _ in range(50):  # until asyncio has its pipes
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not processes(folder)
        assert not runtime.paths("c1").run.exists()

    in_namespaces(scenario)


def test_a_start_whose_caller_gives_up_leaves_nothing() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        spec(folder)
        for pause in range(0, 20, 1):
            task = asyncio.ensure_future(runtime.start_container(spec(folder)))
            await asyncio.sleep(pause / 1000)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
                await runtime.kill_container("c1")
            assert runtime.state("c1").status == "Stopped"
            assert not runtime.cgroups.processes("c1", "monitor")
        await asyncio.sleep(0.3)
        assert not runtime.cgroups.processes("c1", "monitor")
        await runtime.start_container(spec(folder))
        await runtime.kill_container("c1")

    in_namespaces(scenario)
