"""Programs in real containers: what they get, how they end, their terminals."""

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.errors import Conflict, Invalid, Unavailable
from integration.containers import PATH, alive, in_namespaces, ran, sh, spec
from integration.harness import eventually
from lxdpy.host.lxc import pty
from lxdpy.host.lxc.client import ExecRequest, ExecSession, HelperFailed
from lxdpy.host.lxc.runtime import Runtime

pytestmark = pytest.mark.root


@asynccontextmanager
async def running(runtime: Runtime, folder: Path) -> AsyncIterator[int]:
    init = await runtime.start_container(spec(folder))
    yield init
    await runtime.kill_container("c1")


async def until(master: int, wanted: str) -> str:
    """What the terminal says, until it says `wanted`."""
    said = ""
    os.set_blocking(master, False)
    async with asyncio.timeout(30):
        while wanted not in said:
            try:
                said += os.read(master, 65536).decode()
            except BlockingIOError:
                await asyncio.sleep(0.005)
    return said


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_exit_statuses_are_those_of_lxd(argv: tuple[str, ...], status: int) -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            assert (await ran(runtime, "c1", ExecRequest(argv, PATH)))[0] == status

    in_namespaces(scenario)


def test_a_program_has_the_ids_folder_and_environment_it_was_given_and_no_more() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            script = "id -u; id -g; id -G; pwd; env; ls /proc/self/fd"
            request = ExecRequest(
                ("sh", "-c", script), PATH | {"GREETING": "a b\nc"}, "/tmp", uid=5, gid=6, groups=(7, 8)
            )
            _, said = await ran(runtime, "c1", request)
            lines = said.splitlines()
            assert lines[:4] == ["5", "6", "6 7 8", "/tmp"]
            assert "GREETING=a b" in lines
            shell = {"SHLVL", "PWD", "OLDPWD", "container", "PATH", "GREETING"}
            assert {line.split("=")[0] for line in lines if "=" in line} <= shell
            assert lines[-4:] == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
            assert (await ran(runtime, "c1", ExecRequest(("pwd",), PATH, "/gone")))[1] == "/\n"

    in_namespaces(scenario)


def test_a_program_is_confined_as_the_container_is() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder) as init:
            own = await sh(runtime, "c1", "grep -E 'Seccomp:|CapBnd' /proc/self/status; ls -l /proc/self/ns")
            first = Path(f"/proc/{init}/status").read_text()
            assert "Seccomp:\t2" in own
            assert all(line in first for line in own.splitlines()[:2])
            spaces = {
                os.readlink(f"/proc/{init}/ns/{name}") for name in ("user", "mnt", "pid", "net", "cgroup")
            }
            assert spaces <= set(own.split())

    in_namespaces(scenario)


def test_signals_reach_the_program() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            session = await runtime.exec("c1", ExecRequest(("sleep", "100"), PATH), (0, 1, 2))
            assert alive(session.pid)
            session.signal(signal.SIGTERM)
            assert await session.wait() == 143
            with pytest.raises(Conflict, match="has ended"):
                session.signal(signal.SIGTERM)

    in_namespaces(scenario)


def test_a_program_ends_with_its_container() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder))
        session = await runtime.exec("c1", ExecRequest(("sleep", "100"), PATH), (0, 1, 2))
        await runtime.kill_container("c1")
        assert await session.wait() == 137

    in_namespaces(scenario)


def test_arguments_as_long_as_the_kernel_takes_them_arrive() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            words = ("x" * 130_000,) * 10
            request = ExecRequest(
                ("sh", "-c", 'echo $#; for w in "$@"; do echo ${#w}; done', "sh", *words), PATH
            )
            assert (await ran(runtime, "c1", request))[1].split() == ["10"] + ["130000"] * 10
            with pytest.raises(Invalid, match="too long"):
                await ran(runtime, "c1", ExecRequest(("true", "x" * 5_000_000), PATH))
            assert await sh(runtime, "c1", "echo fine") == "fine\n"

    in_namespaces(scenario)


def test_hundreds_of_programs_at_once_each_answer_under_a_storm_of_signals() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            await sh(runtime, "c1", "true")
            fds = len(os.listdir(f"/proc/{runtime.helper.pid}/fd"))
            ended = asyncio.Event()

            async def storm() -> None:
                while not ended.is_set():
                    os.kill(runtime.helper.pid, signal.SIGCHLD)
                    await asyncio.sleep(0.001)

            async def ask(number: int) -> None:
                async with limit:
                    said = await sh(runtime, "c1", f"echo {number}; exit {number % 100}")
                    assert said == f"{number}\n"

            limit = asyncio.Semaphore(40)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(storm())
                async with asyncio.TaskGroup() as asks:
                    for number in range(300):
                        asks.create_task(ask(number))
                ended.set()
            assert len(os.listdir(f"/proc/{runtime.helper.pid}/fd")) == fds
            children = Path(f"/proc/{runtime.helper.pid}/task/{runtime.helper.pid}/children")
            eventually(lambda: not children.read_text().split(), within=30)

    in_namespaces(scenario)


def test_who_gives_up_waiting_leaves_no_program_behind() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            for pause in (0, 0.001, 0.002, 0.004, 0.006, 0.008):
                request = ExecRequest(("sleep", "4321"), PATH)
                task = asyncio.ensure_future(runtime.exec("c1", request, (0, 1, 2)))
                await asyncio.sleep(pause)
                if not task.done():
                    task.cancel()
                try:
                    (await task).signal(signal.SIGKILL)
                except asyncio.CancelledError:
                    continue

            async with asyncio.timeout(30):
                while "4321" in await sh(runtime, "c1", "ps | grep -v grep"):
                    await asyncio.sleep(0.01)

    in_namespaces(scenario)


def test_who_gives_up_at_the_very_moment_leaves_no_program_behind() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            asked = asyncio.ensure_future(runtime.exec("c1", ExecRequest(("sleep", "4321"), PATH), (0, 1, 2)))
            async with asyncio.timeout(30):
                while not any(answer.done() for answer in runtime.helper._answers.values()):
                    await asyncio.sleep(0)
            asked.cancel()  # it has begun, and who asked was not told yet
            with pytest.raises(asyncio.CancelledError):
                await asked
            async with asyncio.timeout(30):
                while "4321" in await sh(runtime, "c1", "ps | grep -v grep"):
                    await asyncio.sleep(0.01)

    in_namespaces(scenario)


def test_whoever_waits_for_the_helper_is_told_that_it_died() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            helper = runtime.helper
            os.kill(helper.pid, signal.SIGSTOP)
            program = runtime.exec("c1", ExecRequest(("true",), PATH), (0, 1, 2))
            # More than its socket holds: some wait until there is room.
            others = [helper.call("eject", target="x" * 4_000_000) for _ in range(8)]
            waiting = [asyncio.ensure_future(one) for one in (program, *others)]
            async with asyncio.timeout(30):
                while not (helper._sending.locked() and len(helper._answers) == len(waiting)):
                    await asyncio.sleep(0)
                os.kill(helper.pid, signal.SIGKILL)
                told = await asyncio.gather(*waiting, return_exceptions=True)
            assert {(type(one), str(one)) for one in told} == {(Unavailable, "The helper died")}
            assert await sh(runtime, "c1", "echo another") == "another\n"

    in_namespaces(scenario)


def test_a_terminal_has_a_size_job_control_and_the_right_owner() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            request = ExecRequest(("sh", "-i"), PATH | {"PS1": "> "}, uid=5, gid=6)
            session, master = await runtime.exec_on_terminal("c1", request, (33, 111))
            os.write(master, b"tty; stty size; stat -c %u:%g $(tty)\n")
            said = await until(master, "5:6")
            assert "/dev/pts/" in said
            assert "33 111" in said
            pty.resize(master, 50, 200)
            os.write(master, b"stty size\n")
            await until(master, "50 200")
            os.write(master, b"sleep 100\n")
            async with asyncio.timeout(30):
                while "sleep 100" not in await sh(runtime, "c1", "ps"):
                    await asyncio.sleep(0.01)
            os.write(master, b"\x03")
            os.write(master, b"exit 42\n")
            async with asyncio.timeout(30):
                assert await session.wait() == 42
            os.close(master)

    in_namespaces(scenario)


def test_closing_the_terminal_hangs_the_program_up() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder):
            request = ExecRequest(("sh", "-c", "echo up; exec sleep 100"), PATH)
            session, master = await runtime.exec_on_terminal("c1", request, (0, 0))
            await until(master, "up")
            os.close(master)
            async with asyncio.timeout(30):
                assert await session.wait() == 129
            assert not alive(session.pid)

    in_namespaces(scenario)


def test_a_container_cannot_pass_off_another_file_as_its_terminal() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        secret = folder / "secret"
        secret.write_text("of the host")
        async with running(runtime, folder):
            await sh(runtime, "c1", f"mount -t tmpfs none /dev/pts && ln -s {secret} /dev/pts/ptmx; true")
            with pytest.raises(HelperFailed, match="ptmx"):
                await runtime.exec_on_terminal("c1", ExecRequest(("true",), PATH), (0, 0))
            await sh(runtime, "c1", "rm /dev/pts/ptmx; touch /dev/pts/ptmx")
            with pytest.raises(HelperFailed, match="not a terminal's device"):
                await runtime.exec_on_terminal("c1", ExecRequest(("true",), PATH), (0, 0))
        with pytest.raises(Conflict, match="not running"):
            await runtime.exec_on_terminal("c1", ExecRequest(("true",), PATH), (0, 0))

    in_namespaces(scenario)


def test_a_terminal_tells_its_size() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        async with running(runtime, folder) as init:
            master, slave = pty.open_pty(init)
            pty.resize(master, 24, 80)
            assert struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)))[:2] == (24, 80)
            os.close(master)
            os.close(slave)

    in_namespaces(scenario)


def test_the_sessions_of_one_container_do_not_hold_up_those_of_another() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        sessions: list[ExecSession] = []
        for name in ("c1", "c2"):
            await runtime.start_container(spec(folder, name))
            sessions.append(await runtime.exec(name, ExecRequest(("sleep", "100"), PATH), (0, 1, 2)))
        await runtime.kill_container("c1")
        assert await sessions[0].wait() == 137
        assert alive(sessions[1].pid)
        await runtime.kill_container("c2")

    in_namespaces(scenario)
