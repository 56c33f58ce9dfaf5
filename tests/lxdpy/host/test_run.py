import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import Unsupported
from lxdpy.host.run import CommandFailed, run, to_its_end
from tests.patience import eventually


def test_stdin_goes_in_and_both_outputs_come_out() -> None:
    done = asyncio.run(run("sh", "-c", "cat; echo oops >&2", stdin="words"))
    assert (done.stdout, done.stderr) == ("words", "oops\n")


def test_words_are_not_read_by_a_shell() -> None:
    assert asyncio.run(run("echo", "$HOME; true")).stdout == "$HOME; true\n"


def test_the_environment_is_ours_and_not_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("LC_ALL", "tlh")
    out = asyncio.run(run("env")).stdout
    assert "SECRET" not in out
    assert "LC_ALL=C.UTF-8" in out


def test_a_failure_tells_the_last_words_and_the_status() -> None:
    with pytest.raises(CommandFailed, match="sh failed: no such luck") as caught:
        asyncio.run(run("sh", "-c", "echo no such luck >&2; exit 3"))
    assert caught.value.facts["status"] == "3"


def test_a_missing_program_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="not installed: no-such-program"):
        asyncio.run(run("no-such-program"))


def test_a_program_that_takes_too_long_is_killed() -> None:
    word = f"60.{os.getpid()}"
    with pytest.raises(CommandFailed, match=r"longer than 0\.2 s"):
        asyncio.run(run("sleep", word, timeout=0.2))
    assert not [line for line in command_lines() if word in line]


def command_lines() -> Iterator[str]:
    """Of all processes."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_text(errors="replace")


def test_cancelling_the_caller_kills_the_program(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def scenario() -> None:
        task = asyncio.ensure_future(run("sh", "-c", f"echo $$ > {pid}; exec sleep 60"))
        await eventually(lambda: pid.exists() and pid.read_text().endswith("\n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


def test_who_is_killed_is_not_waited_for_until_its_children_end(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def scenario() -> None:
        task = asyncio.ensure_future(run("sh", "-c", f"sleep 1000 & echo $! > {pid}; wait"))
        await eventually(lambda: pid.exists() and pid.read_text().endswith("\n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    os.kill(int(pid.read_text()), signal.SIGKILL)  # it is there still


@pytest.mark.parametrize("within", [60, 0])
def test_who_gives_up_waits_for_the_end_of_what_cannot_be_cut_short(within: float) -> None:
    async def scenario() -> list[str]:
        said: list[str] = []
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await may_end.wait()
                said.append("done")
            finally:
                said.append("over")

        task = asyncio.ensure_future(to_its_end(work(), within))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        if within:
            assert not said
            may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return said

    assert asyncio.run(scenario()) == (["done", "over"] if within else ["over"])


def test_what_comes_to_its_end_gives_its_result_or_failure() -> None:
    async def fails() -> None:
        raise Unsupported("not here")

    assert asyncio.run(to_its_end(asyncio.sleep(0, "result"), 60)) == "result"
    with pytest.raises(Unsupported, match="not here"):
        asyncio.run(to_its_end(fails(), 60))
