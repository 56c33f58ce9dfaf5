import asyncio
from pathlib import Path

import pytest

from cluster.errors import NotFound
from lxdpy.host.storage.cache import ImageCache
from lxdpy.host.storage.driver import Pool
from lxdpy.host.storage.layout import make_folder, make_top, named, part_of, remove_tree

IMAGE = "cd" * 32
HALF = OSError("the disk has gone")


async def make(path: Path) -> None:
    make_folder(path, 0o700)


async def fill(path: Path) -> None:
    (path / "rootfs").mkdir()


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    pool = Pool("local", tmp_path, {})
    make_top(pool.mount)
    return ImageCache(pool, make, remove_tree)


def test_an_image_is_not_deleted_while_an_instance_is_made_of_it(cache: ImageCache) -> None:
    async def go() -> None:
        await cache.ensure(IMAGE, fill)
        used = False
        async with cache.held(IMAGE) as folder:
            deletion = asyncio.ensure_future(cache.delete(IMAGE, lambda _: used))
            await asyncio.sleep(0.01)
            assert (folder / "rootfs").is_dir()
            used = True  # the instance stands on it now
        await deletion
        assert (cache.path(IMAGE) / "rootfs").is_dir()
        assert cache.wanted() == []
        used = False
        await cache.sweep(lambda _: used)
        with pytest.raises(NotFound):
            async with cache.held(IMAGE):
                pass

    asyncio.run(go())


def test_an_image_that_is_asked_for_again_while_it_goes_is_unpacked_anew(cache: ImageCache) -> None:
    async def go() -> None:
        await cache.ensure(IMAGE, fill)
        await asyncio.gather(cache.delete(IMAGE, lambda _: False), cache.ensure(IMAGE, fill))
        assert cache.wanted() == [IMAGE]
        assert (cache.path(IMAGE) / "rootfs").is_dir()

    asyncio.run(go())


def test_of_an_image_that_was_removed_half_nothing_is_used(tmp_path: Path) -> None:
    pool = Pool("local", tmp_path, {})
    make_top(pool.mount)

    async def half(path: Path) -> None:
        for inside in named(path):
            (path / inside).rmdir()
            raise HALF

    async def go() -> None:
        dying = ImageCache(pool, make, half)
        await dying.ensure(IMAGE, fill)
        with pytest.raises(OSError, match="the disk has gone"):
            await dying.delete(IMAGE, lambda _: False)
        after = ImageCache(pool, make, remove_tree)
        assert after.wanted() == []
        await after.ensure(IMAGE, fill)
        assert (after.path(IMAGE) / "rootfs").is_dir()

    asyncio.run(go())


def test_what_a_crash_left_of_images_goes_with_the_next_start(cache: ImageCache) -> None:
    async def go() -> None:
        await cache.ensure(IMAGE, fill)
        part = part_of(cache.path("ef" * 32))
        await make(part)
        await fill(part)
        await cache.clean()
        assert [path.name for path in cache.path(IMAGE).parent.iterdir()] == [IMAGE]

    asyncio.run(go())


def test_a_mark_of_an_image_that_is_gone_goes_too(cache: ImageCache) -> None:
    async def go() -> None:
        await cache.ensure(IMAGE, fill)
        await cache.delete(IMAGE, lambda _: True)
        await remove_tree(cache.path(IMAGE))
        await cache.sweep(lambda _: False)
        assert list(cache.path(IMAGE).parent.iterdir()) == []

    asyncio.run(go())
