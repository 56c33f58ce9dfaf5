"""What every storage driver must do, as promises to try on one."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.errors import Exhausted, NotFound
from lxdpy.host.idmap import Idmap
from lxdpy.host.storage.driver import StorageDriver, Volume
from lxdpy.host.storage.layout import CorruptVolume

IMAGE = "ab" * 32
C1, C2, C3 = Volume("c1"), Volume("proj_c2"), Volume("c3")
SNAP = Volume("c1", snapshot="snap0")
DATA = Volume("default_data", "custom")


class NoMounts:
    """For tests without root: a driver that mounts here is found out."""

    async def mount_overlay(
        self, lower: Sequence[Path], upper_work: Path, target: Path, idmap: Idmap | None
    ) -> None:
        raise AssertionError(f"mounted {target}")

    async def unmount(self, target: Path) -> None:
        raise AssertionError(f"unmounted {target}")


@dataclass
class Bench:
    """A driver with an open pool, and a way to the files of its volumes without mounting anything."""

    driver: StorageDriver
    inside: Callable[[Volume], Path]

    async def launch(self, volume: Volume = C1) -> None:
        await self.driver.ensure_image(IMAGE, fill)
        await self.driver.create_from_image(volume, IMAGE)


async def fill(folder: Path) -> None:
    """A very small image."""
    (folder / "rootfs" / "etc").mkdir(parents=True)
    (folder / "rootfs").chmod(0o755)
    (folder / "rootfs" / "etc" / "hostname").write_text("image\n")
    (folder / "metadata.yaml").write_text("architecture: x86_64\n")
    (folder / "templates").mkdir()
    (folder / "templates" / "hostname.tpl").write_text("{{ container.name }}\n")


async def making_a_pool_twice_is_fine(bench: Bench) -> None:
    await bench.driver.create_pool()
    await bench.driver.open_pool()
    await bench.driver.open_pool()
    space = await bench.driver.space()
    assert 0 < space.used < space.total


async def an_image_is_unpacked_once_however_many_ask(bench: Bench) -> None:
    unpacked = []

    async def unpack(folder: Path) -> None:
        await asyncio.sleep(0.01)
        unpacked.append(folder)
        await fill(folder)

    await asyncio.gather(*(bench.driver.ensure_image(IMAGE, unpack) for _ in range(3)))
    assert len(unpacked) == 1
    assert await bench.driver.images() == [IMAGE]


async def an_image_that_fails_to_unpack_leaves_nothing(bench: Bench) -> None:
    async def fail(folder: Path) -> None:
        await fill(folder)
        raise Exhausted("full")

    with pytest.raises(Exhausted):
        await bench.driver.ensure_image(IMAGE, fail)
    assert await bench.driver.images() == []
    with pytest.raises(NotFound):
        await bench.driver.create_from_image(C1, IMAGE)
    assert await bench.driver.volumes() == []
    await bench.launch()


async def what_a_crash_left_of_an_image_is_not_taken_for_one(bench: Bench) -> None:
    async def die(folder: Path) -> None:
        (folder / "half").write_text("")
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await bench.driver.ensure_image(IMAGE, die)
    await bench.launch()
    assert not (bench.driver.path(C1) / "half").exists()


async def an_instance_brings_its_metadata_and_templates(bench: Bench) -> None:
    await bench.launch()
    path = bench.driver.path(C1)
    assert (path / "metadata.yaml").read_text() == "architecture: x86_64\n"
    assert (path / "templates" / "hostname.tpl").is_file()


async def creating_and_deleting_twice_is_fine(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "kept").write_text("mine")
    await bench.launch()
    assert (bench.inside(C1) / "kept").read_text() == "mine"
    await bench.driver.delete(C1)
    await bench.driver.delete(C1)
    assert await bench.driver.volumes() == []
    assert await bench.driver.images() == [IMAGE]


async def a_custom_volume_is_there_until_it_is_deleted(bench: Bench) -> None:
    await bench.driver.create(DATA)
    (bench.driver.path(DATA) / "file").write_text("x")
    await bench.driver.create(DATA)
    assert (bench.driver.path(DATA) / "file").read_text() == "x"
    assert await bench.driver.volumes() == [DATA]
    await bench.driver.delete(DATA)
    assert await bench.driver.volumes() == []


async def a_copy_is_a_volume_of_its_own(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "file").write_text("before")
    await bench.driver.copy(C1, C2)
    await bench.driver.copy(C1, C2)
    (bench.inside(C1) / "file").write_text("after")
    assert (bench.inside(C2) / "file").read_text() == "before"
    await bench.driver.delete(C1)
    assert (bench.inside(C2) / "file").read_text() == "before"
    assert (bench.driver.path(C2) / "metadata.yaml").is_file()
    assert await bench.driver.volumes() == [C2]


async def a_copy_of_what_is_not_there_is_refused(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.driver.copy(C1, C2)
    assert await bench.driver.volumes() == []


async def a_snapshot_brings_the_files_back(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "file").write_text("before")
    await bench.driver.snapshot(SNAP)
    (bench.inside(C1) / "file").write_text("after")
    (bench.inside(C1) / "new").write_text("")
    await bench.driver.snapshot(SNAP)  # it is there: not taken again
    await bench.driver.restore(SNAP)
    await bench.driver.restore(SNAP)
    assert (bench.inside(C1) / "file").read_text() == "before"
    assert not (bench.inside(C1) / "new").exists()
    assert await bench.driver.volumes() == [C1, SNAP]


async def a_copy_of_a_snapshot_can_be_written(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "file").write_text("before")
    await bench.driver.snapshot(SNAP)
    await bench.driver.copy(SNAP, C2)
    (bench.inside(C2) / "file").write_text("other")
    await bench.driver.restore(SNAP)
    assert (bench.inside(C1) / "file").read_text() == "before"


async def custom_volumes_have_snapshots_too(bench: Bench) -> None:
    snap = Volume(DATA.name, "custom", "s1")
    await bench.driver.create(DATA)
    (bench.driver.path(DATA) / "file").write_text("before")
    await bench.driver.snapshot(snap)
    (bench.driver.path(DATA) / "file").write_text("after")
    await bench.driver.restore(snap)
    assert (bench.driver.path(DATA) / "file").read_text() == "before"


async def deleting_takes_the_snapshots_along(bench: Bench) -> None:
    await bench.launch()
    await bench.driver.snapshot(SNAP)
    await bench.driver.delete(C1)
    assert await bench.driver.volumes() == []


async def deleting_a_snapshot_leaves_the_rest(bench: Bench) -> None:
    other = Volume("c1", snapshot="snap1")
    await bench.launch()
    await bench.driver.snapshot(SNAP)
    await bench.driver.snapshot(other)
    await bench.driver.delete(SNAP)
    await bench.driver.delete(SNAP)
    assert await bench.driver.volumes() == [C1, other]


async def a_filled_volume_takes_the_place_of_what_was_there(bench: Bench) -> None:
    async def unpack(folder: Path) -> None:
        await fill(folder)
        (folder / "rootfs" / "new").write_text("new")
        (folder / "image").symlink_to("/")
        (folder / "overlay").mkdir()

    await bench.launch()
    (bench.inside(C1) / "old").write_text("old")
    await bench.driver.fill(C1, unpack)
    await bench.driver.fill(SNAP, unpack)
    assert (bench.inside(C1) / "new").read_text() == "new"
    assert not (bench.inside(C1) / "old").exists()
    assert not (bench.driver.path(C1) / "image").is_symlink()
    assert (bench.driver.path(C1) / "templates" / "hostname.tpl").is_file()
    (bench.inside(C1) / "new").write_text("other")
    await bench.driver.restore(SNAP)
    assert (bench.inside(C1) / "new").read_text() == "new"
    assert await bench.driver.volumes() == [C1, SNAP]


async def a_volume_that_cannot_be_filled_stays_as_it_was(bench: Bench) -> None:
    async def fail(folder: Path) -> None:
        await fill(folder)
        raise Exhausted("full")

    async def deceive(folder: Path) -> None:
        (folder / "rootfs").symlink_to("/")

    await bench.launch()
    for unpack, error in ((fail, Exhausted), (deceive, CorruptVolume)):
        for volume in (C1, C2, SNAP):
            with pytest.raises(error):
                await bench.driver.fill(volume, unpack)
    assert (bench.driver.path(C1) / "metadata.yaml").is_file()
    assert await bench.driver.volumes() == [C1]
    assert [p.name for p in bench.driver.path(C1).parent.iterdir()] == ["c1"]


async def a_stream_makes_the_same_volume_again(bench: Bench) -> None:
    later = Volume("c1", snapshot="snap1")
    again = {SNAP: Volume(C2.name, snapshot="snap0"), later: Volume(C2.name, snapshot="snap1"), C1: C2}
    await bench.launch()
    for snapshot in (SNAP, later):
        (bench.inside(C1) / "file").write_text(snapshot.snapshot)
        await bench.driver.snapshot(snapshot)
    (bench.inside(C1) / "file").write_text("now")
    await bench.driver.create(C2)

    async def finish(folder: Path) -> None:
        (folder / "metadata.yaml").write_text("finished")

    async with bench.driver.receiving() as receive:
        parent: Volume | None = None
        for volume, target in again.items():
            await receive(target, bench.driver.send(volume, parent, {}), finish)
            parent = volume
    found = {volume.snapshot: (bench.inside(volume) / "file").read_text() for volume in again.values()}
    assert found == {"snap0": "snap0", "snap1": "snap1", "": "now"}
    assert (bench.driver.path(C2) / "metadata.yaml").read_text() == "finished"
    assert await bench.driver.volumes() == [C1, C2, SNAP, later, again[SNAP], again[later]]
    assert not [name for name in os.listdir(bench.driver.path(C1).parents[1]) if name.startswith(".")]


async def a_stream_that_breaks_off_leaves_nothing(bench: Bench) -> None:
    await bench.launch()
    await bench.driver.snapshot(SNAP)

    async def broken() -> AsyncIterator[bytes]:
        async for piece in bench.driver.send(SNAP, None, {}):
            yield piece[: len(piece) // 2]
            raise Exhausted("full")

    async with bench.driver.receiving() as receive:
        with pytest.raises(Exhausted):
            await receive(C2, broken(), fill)
    assert await bench.driver.volumes() == [C1, SNAP]
    assert os.listdir(bench.driver.path(C1).parent) == ["c1"]


async def a_renamed_volume_keeps_files_and_snapshots(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "file").write_text("x")
    await bench.driver.snapshot(SNAP)
    await bench.driver.rename(C1, "d1")
    await bench.driver.rename(C1, "d1")
    assert (bench.inside(Volume("d1")) / "file").read_text() == "x"
    assert await bench.driver.volumes() == [Volume("d1"), Volume("d1", snapshot="snap0")]
    await bench.driver.restore(Volume("d1", snapshot="snap0"))


async def an_image_can_be_deleted_under_its_instances(bench: Bench) -> None:
    await bench.launch()
    await bench.driver.copy(C1, C2)
    await bench.driver.delete_image(IMAGE)
    await bench.driver.delete_image(IMAGE)
    assert await bench.driver.images() == []
    await bench.driver.delete(C1)
    await bench.driver.snapshot(Volume(C2.name, snapshot="s"))  # still whole
    await bench.driver.delete(C2)
    images = bench.driver.path(C1).parents[1] / "images"
    assert list(images.iterdir()) == []


async def a_deleted_image_that_is_wanted_again_stays(bench: Bench) -> None:
    await bench.launch()
    await bench.driver.delete_image(IMAGE)
    await bench.launch(C2)
    await bench.driver.delete(C1)
    await bench.driver.delete(C2)
    assert await bench.driver.images() == [IMAGE]


async def an_image_stays_while_a_volume_comes_that_stands_on_it(bench: Bench) -> None:
    await bench.launch()

    async def deleted_meanwhile(_: Path) -> None:
        await bench.driver.delete_image(IMAGE)
        await bench.driver.delete(C1)

    async with bench.driver.receiving() as receive:
        await receive(C2, bench.driver.send(C1, None, {}), deleted_meanwhile)
    for name in os.listdir(bench.driver.path(C2)):
        assert (bench.driver.path(C2) / name).exists(), "a link that leads nowhere"
    await bench.driver.delete(C2)
    assert os.listdir(bench.driver.path(C1).parents[1] / "images") == []


async def a_volume_can_be_sent_twice_at_once(bench: Bench) -> None:
    await bench.launch()
    (bench.inside(C1) / "file").write_text("x")
    async with bench.driver.receiving() as receive:
        both = ((to, bench.driver.send(C1, None, {})) for to in (C2, C3))
        await asyncio.gather(*(receive(to, sent, lambda _: asyncio.sleep(0)) for to, sent in both))
    assert [(bench.inside(target) / "file").read_text() for target in (C2, C3)] == ["x", "x"]


async def what_a_volume_uses_is_its_own_files(bench: Bench) -> None:
    await bench.launch()
    before = await bench.driver.used(C1)
    (bench.inside(C1) / "file").write_bytes(b"x" * 3_000_000)
    bench_sync = await asyncio.create_subprocess_exec("sync", "-f", bench.driver.path(C1))
    await bench_sync.wait()
    assert 2_900_000 < await bench.driver.used(C1) - before < 4_000_000


async def no_other_user_of_the_host_reaches_the_files(bench: Bench) -> None:
    """They may be setuid root."""
    await bench.launch()
    await bench.driver.create(DATA)
    await bench.driver.snapshot(SNAP)
    top = bench.driver.path(C1).parents[1]
    for path in (
        bench.driver.path(C1),
        bench.driver.path(DATA),
        bench.driver.path(SNAP),
        top / "images" / IMAGE,
    ):
        ways = [path, *path.parents][: len(path.relative_to(top).parts)]
        assert any(folder.stat().st_mode & 0o077 == 0 for folder in ways), path


async def a_deleted_pool_is_gone(bench: Bench) -> None:
    await bench.launch()
    await bench.driver.create(DATA)
    await bench.driver.snapshot(SNAP)
    await bench.driver.delete_pool()
    await bench.driver.delete_pool()
    assert not bench.driver.path(C1).parents[1].exists()


PROMISES = (
    making_a_pool_twice_is_fine,
    an_image_is_unpacked_once_however_many_ask,
    an_image_that_fails_to_unpack_leaves_nothing,
    what_a_crash_left_of_an_image_is_not_taken_for_one,
    an_instance_brings_its_metadata_and_templates,
    creating_and_deleting_twice_is_fine,
    a_custom_volume_is_there_until_it_is_deleted,
    a_copy_is_a_volume_of_its_own,
    a_copy_of_what_is_not_there_is_refused,
    a_snapshot_brings_the_files_back,
    a_copy_of_a_snapshot_can_be_written,
    a_filled_volume_takes_the_place_of_what_was_there,
    a_volume_that_cannot_be_filled_stays_as_it_was,
    a_stream_makes_the_same_volume_again,
    a_stream_that_breaks_off_leaves_nothing,
    custom_volumes_have_snapshots_too,
    deleting_takes_the_snapshots_along,
    deleting_a_snapshot_leaves_the_rest,
    a_renamed_volume_keeps_files_and_snapshots,
    an_image_can_be_deleted_under_its_instances,
    a_deleted_image_that_is_wanted_again_stays,
    an_image_stays_while_a_volume_comes_that_stands_on_it,
    a_volume_can_be_sent_twice_at_once,
    what_a_volume_uses_is_its_own_files,
    no_other_user_of_the_host_reaches_the_files,
    a_deleted_pool_is_gone,
)
by_promise = pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
Promise = Callable[[Bench], Awaitable[None]]
