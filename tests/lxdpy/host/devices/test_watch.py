"""Paths that come and go are told of, to those who asked."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from lxdpy.host.devices.watch import DeviceWatch, nearest

Scenario = Callable[[DeviceWatch, "asyncio.Queue[str]"], Awaitable[None]]


def watching(scenario: Scenario) -> None:
    async def main() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        watch = DeviceWatch(breath=0.01)
        watch.changed = told.put_nowait
        try:
            async with asyncio.timeout(10):
                await scenario(watch, told)
        finally:
            watch.close()

    asyncio.run(main())


def test_a_file_is_told_of_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    async def scenario(watch: DeviceWatch, told: "asyncio.Queue[str]") -> None:
        watch.watch("c1", [str(tmp_path / "x")])
        (tmp_path / "x").touch()
        assert await told.get() == "c1"
        (tmp_path / "x").unlink()
        assert await told.get() == "c1"

    watching(scenario)


def test_folders_that_are_not_there_yet_are_followed_down(tmp_path: Path) -> None:
    async def scenario(watch: DeviceWatch, told: "asyncio.Queue[str]") -> None:
        watch.watch("c1", [str(tmp_path / "a/b/x")])
        for made in ("a", "a/b"):
            (tmp_path / made).mkdir()
            assert await told.get() == "c1"
        (tmp_path / "a/b/x").touch()
        assert await told.get() == "c1"

    watching(scenario)


def test_who_asks_no_more_is_not_told(tmp_path: Path) -> None:
    async def scenario(watch: DeviceWatch, told: "asyncio.Queue[str]") -> None:
        for key in ("c1", "c2"):
            watch.watch(key, [str(tmp_path / "x")])
        watch.watch("c1", [])
        (tmp_path / "x").touch()
        assert await told.get() == "c2"
        assert told.empty()

    watching(scenario)


def test_the_nearest_folder_is_that_in_which_something_would_appear(tmp_path: Path) -> None:
    assert nearest(str(tmp_path / "x")) == str(tmp_path)
    assert nearest(str(tmp_path / "a/b/x")) == str(tmp_path)
    assert nearest(str(tmp_path)) == str(tmp_path)


def test_nobody_is_told_any_more_of_what_ended_before_the_watch_was_closed() -> None:
    """Whoever is called starts it again: not while the daemon ends."""

    async def scenario(watch: DeviceWatch, told: "asyncio.Queue[str]") -> None:
        watch.watch_process("ended", 0)
        watch.close()
        other = DeviceWatch(breath=0.02)  # longer than the first one's
        other.changed = told.put_nowait
        other.watch_process("later", 0)
        assert await told.get() == "later"

    watching(scenario)


def test_a_process_that_ends_is_told_of_and_one_that_has_ended(tmp_path: Path) -> None:
    async def scenario(watch: DeviceWatch, told: "asyncio.Queue[str]") -> None:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        watch.watch_process("lives", process.pid)
        watch.watch_process("unknown", 0)
        assert await told.get() == "unknown"
        process.kill()
        await process.wait()
        assert await told.get() == "lives"
        watch.watch_process("gone", process.pid)
        assert await told.get() == "gone"

    watching(scenario)
