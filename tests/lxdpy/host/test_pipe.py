import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import Unsupported
from lxdpy.host import pipe
from lxdpy.host.run import CommandFailed
from lxdpy.host.storage import stream


async def many(total: int) -> AsyncIterator[bytes]:
    for _ in range(total):
        yield b"x" * 65536


def test_bytes_go_in_and_come_out(tmp_path: Path) -> None:
    async def go() -> None:
        await pipe.feed(many(50), "dd", f"of={tmp_path / 'f'}")
        size = sum([len(piece) async for piece in pipe.output("cat", tmp_path / "f")])
        assert size == 50 * 65536

    asyncio.run(go())


def test_a_program_that_fails_says_why() -> None:
    async def go() -> None:
        with pytest.raises(CommandFailed, match="sh failed: alas"):
            await pipe.feed(many(50), "sh", "-c", "echo alas >&2; exit 3")
        with pytest.raises(CommandFailed, match=r"cat failed: .*No such file"):
            async for _ in pipe.output("cat", "/nowhere"):
                pass
        with pytest.raises(CommandFailed, match="true stopped reading"):
            await pipe.feed(many(50), "true")
        with pytest.raises(Unsupported):
            await pipe.feed(many(1), "there-is-no-such-program")

    asyncio.run(go())


def test_a_program_dies_with_its_source(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("alas")

    async def go() -> None:
        with pytest.raises(ValueError, match="alas"):
            await pipe.feed(broken(), "sh", "-c", f"cat; touch {tmp_path / 'ended'}")
        await asyncio.sleep(0)

    asyncio.run(go())
    assert not (tmp_path / "ended").exists()


def test_pipes_are_let_go_if_the_end_is_not_waited_for() -> None:
    async def go() -> None:
        children: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()

        async def used() -> None:
            async with pipe.running("sleep", "60") as child:
                await children.put(child)
                await asyncio.Event().wait()

        task = asyncio.ensure_future(used())
        child = await children.get()
        for _ in range(2):  # the second time it is waiting for the end
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert child._transport.is_closing()  # type: ignore[attr-defined]
        await child.wait()

    asyncio.run(go())


def test_a_folder_is_the_same_at_the_other_end(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "rootfs/etc").mkdir(parents=True)
    (source / "rootfs/etc/host name").write_text("c1")
    (source / "rootfs/etc").chmod(0o1751)
    (source / "rootfs/link").symlink_to("/etc/passwd")
    (source / "rootfs/twin").hardlink_to(source / "rootfs/etc/host name")
    (source / "metadata.yaml").write_text("x")
    (source / "overlay").mkdir()
    target.mkdir()
    asyncio.run(stream.unpack(stream.pack(source), target))
    assert sorted(path.name for path in target.iterdir()) == ["metadata.yaml", "rootfs"]
    assert (target / "rootfs/etc").stat().st_mode == (source / "rootfs/etc").stat().st_mode
    assert (target / "rootfs/link").readlink() == Path("/etc/passwd")
    assert (target / "rootfs/twin").samefile(target / "rootfs/etc/host name")
