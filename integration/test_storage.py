"""Storage drivers on real file systems: overlays, loop devices, quotas, disks that are full."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.errors import Exhausted, Invalid
from integration.conftest import mounts_below
from integration.harness import eventually
from lxdpy.host.build import build_busybox
from lxdpy.host.idmap import Idmap
from lxdpy.host.images import ImageStore
from lxdpy.host.lxc.client import ExecRequest
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.lxc.spec import ContainerSpec
from lxdpy.host.run import run
from lxdpy.host.storage.btrfs import Btrfs
from lxdpy.host.storage.dir import Dir
from lxdpy.host.storage.driver import Pool, StorageDriver
from lxdpy.host.storage.layout import VolumeInUse, mounted
from tests.contracts.storage import C1, C2, IMAGE, SNAP, Bench, NoMounts, Promise, by_promise, fill

pytestmark = pytest.mark.root
MAP = Idmap(1_000_000, 65536)
OTHER_MAP = Idmap(2_000_000, 65536)
MIB = 2**20


def loops_of(folder: Path) -> str:
    """The kernel lets go of one a while after its last mount, in whatever namespace, is gone."""
    done = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True)
    return "\n".join(line for line in done.stdout.splitlines() if str(folder) in line)


@asynccontextmanager
async def runtime_in(root: Path) -> AsyncIterator[Runtime]:
    runtime = Runtime(root, tag=root.name)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


@asynccontextmanager
async def pool_of(kind: type[StorageDriver], root: Path, runtime: Runtime) -> AsyncIterator[StorageDriver]:
    config = {"size": "192MiB"} if kind is Btrfs else {}
    driver = kind(Pool("local", root, config), runtime.mounts)
    await driver.create_pool()
    yield driver
    await driver.delete_pool()
    assert mounts_below(root) == []
    eventually(lambda: loops_of(root) == "", within=30)


def small_disk(root: Path, size: int = 24 * MIB) -> Path:
    """An ext4 of that size, mounted."""
    image, mount = root / "small.img", root / "small"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    (mount / "lost+found").rmdir()
    return mount


@by_promise
def test_btrfs_keeps_its_promise_that(promise: Promise, root: Path) -> None:
    async def go() -> None:
        driver = Btrfs(Pool("local", root, {"size": "192MiB"}), NoMounts())
        await driver.create_pool()
        await promise(Bench(driver, lambda volume: driver.path(volume) / "rootfs"))
        await driver.delete_pool()
        eventually(lambda: loops_of(root) == "", within=30)

    asyncio.run(go())


both = pytest.mark.parametrize("kind", [Dir, Btrfs])


@both
def test_a_container_starts_writes_and_stops(kind: type[StorageDriver], root: Path) -> None:
    """Owners on disk are the container's own; the image stays as it was."""

    async def go() -> None:
        await build_busybox(root / "busybox.tar.gz")
        store = ImageStore(root)
        async with store.upload() as upload:
            await upload.add(chunks(root / "busybox.tar.gz"))
            image = (await upload.finish()).files.fingerprint
        async with runtime_in(root) as runtime, pool_of(kind, root, runtime) as driver:
            await driver.ensure_image(image, lambda target: store.unpack(image, target))
            await driver.create_from_image(C1, image)
            seen = await driver.mount(C1, MAP)
            assert await driver.mount(C1, MAP) == seen
            spec = ContainerSpec("c1", str(seen.path), MAP, rootfs_is_mapped=seen.mapped)
            await runtime.start_container(spec)
            try:
                script = "test -O / && test -O /bin/busybox && echo data >/root/file && chown 5:6 /root/file"
                assert await status(runtime, "/bin/sh", "-c", script) == 0
                await runtime.shutdown_container("c1", 10)
            finally:
                await runtime.kill_container("c1")
            await driver.unmount(C1)
            await driver.unmount(C1)
            changed = driver.path(C1) / ("overlay/upper" if kind is Dir else "rootfs") / "root/file"
            assert changed.read_text() == "data\n"
            assert (changed.stat().st_uid, changed.stat().st_gid) == (5, 6)
            pristine = root / "storage-pools/local/images" / image / "rootfs/root"
            assert list(pristine.iterdir()) == []
            await driver.delete(C1)

    asyncio.run(go())


async def chunks(path: Path) -> AsyncIterator[bytes]:
    yield path.read_bytes()


async def status(runtime: Runtime, *argv: str) -> int:
    with open(os.devnull, "r+b") as null:
        fd = null.fileno()
        session = await runtime.exec("c1", ExecRequest(argv), [fd, fd, fd])
    return await session.wait()


def on_dir(
    root: Path, check: Callable[[StorageDriver], Awaitable[None]], kind: type[StorageDriver] = Dir
) -> None:
    async def go() -> None:
        async with runtime_in(root) as runtime, pool_of(kind, root, runtime) as driver:
            await driver.ensure_image(IMAGE, fill)
            await driver.create_from_image(C1, IMAGE)
            await check(driver)

    asyncio.run(go())


def test_an_overlay_shows_image_and_changes_by_the_id_map(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        seen = await driver.mount(C1, MAP)
        hostname = seen.path / "etc" / "hostname"
        assert (hostname.stat().st_uid, seen.path.stat().st_uid) == (MAP.base, MAP.base)
        hostname.write_text("changed\n")
        await driver.unmount(C1)
        assert (driver.path(C1) / "overlay/upper/etc/hostname").stat().st_uid == 0
        again = await driver.mount(C1, OTHER_MAP)
        assert (again.path / "etc/hostname").read_text() == "changed\n"
        assert (again.path / "etc/hostname").stat().st_uid == OTHER_MAP.base
        await driver.unmount(C1)
        plain = await driver.mount(C1, None)
        assert (plain.path / "etc/hostname").stat().st_uid == 0

    on_dir(root, check)


def test_a_mount_for_another_map_is_refused_while_one_is_there(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        await driver.mount(C1, MAP)
        for other in (OTHER_MAP, None):
            with pytest.raises(VolumeInUse):
                await driver.mount(C1, other)
        with pytest.raises(VolumeInUse):
            await driver.restore(SNAP)

    on_dir(root, check)


def test_removed_image_files_stay_removed_in_copies_and_snapshots(root: Path) -> None:
    """What overlayfs notes of that are white-outs and trusted attributes, easily lost in a copy."""

    async def check(driver: StorageDriver) -> None:
        seen = await driver.mount(C1, None)
        (seen.path / "etc" / "hostname").unlink()
        (seen.path / "etc").rmdir()
        (seen.path / "etc").mkdir()
        await driver.snapshot(SNAP)
        await driver.copy(C1, C2)
        await driver.unmount(C1)
        await driver.restore(SNAP)
        for volume in (C1, C2):
            seen = await driver.mount(volume, None)
            assert list((seen.path / "etc").iterdir()) == []
            (seen.path / "etc" / "new").write_text("")
            await driver.unmount(volume)

    on_dir(root, check)


def test_an_empty_container_volume_can_be_mounted(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        await driver.create(C2)
        seen = await driver.mount(C2, None)
        (seen.path / "file").write_text("x")

    on_dir(root, check)


def test_only_the_containers_root_may_pass(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        seen = await driver.mount(C1, MAP)
        for uid, may in ((MAP.base, True), (MAP.base + 1, False), (65534, False)):
            done = await asyncio.create_subprocess_exec("ls", seen.path, user=uid, group=uid, extra_groups=[],
                                                        stdout=-3, stderr=-3)  # fmt: skip
            assert (await done.wait() == 0) == may, uid

    on_dir(root, check)


@both
def test_a_full_disk_during_unpack_leaves_nothing(kind: type[StorageDriver], root: Path) -> None:
    async def go() -> None:
        (root / "tree/rootfs").mkdir(parents=True)
        (root / "tree/metadata.yaml").write_text("architecture: x86_64\ncreation_date: 1\n")
        (root / "tree/rootfs/blob").write_bytes(os.urandom(240 * MIB))
        await run("tar", "-C", root / "tree", "-cf", root / "big.tar", "metadata.yaml", "rootfs")
        store = ImageStore(root)
        async with store.upload() as upload:
            await upload.add(chunks(root / "big.tar"))
            image = (await upload.finish()).files.fingerprint
        config = {"source": str(small_disk(root))} if kind is Dir else {"size": "192MiB"}
        driver = kind(Pool("local", root, config), NoMounts())
        await driver.create_pool()
        before = (await driver.space()).used
        with pytest.raises(Exhausted, match="No space left to unpack the image"):
            await driver.ensure_image(image, lambda target: store.unpack(image, target))
        assert await driver.images() == []
        assert list((root / "storage-pools/local/images").iterdir()) == []
        await run("sync", "-f", root / "storage-pools/local")
        assert (await driver.space()).used - before < 4 * MIB
        await driver.ensure_image(IMAGE, fill)
        await driver.delete_pool()

    asyncio.run(go())


def test_an_upload_to_a_full_disk_leaves_nothing(root: Path) -> None:
    async def go() -> None:
        store = ImageStore(small_disk(root))

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield os.urandom(MIB)

        with pytest.raises(Exhausted):
            async with store.upload() as upload:
                await upload.add(endless())
        assert list(store.folder.iterdir()) == []

    asyncio.run(go())


def test_a_dir_pool_in_a_folder_of_the_users_leaves_it_empty(root: Path) -> None:
    async def go() -> None:
        source = root / "source"
        source.mkdir()
        driver = Dir(Pool("local", root, {"source": str(source)}), NoMounts())
        await driver.create_pool()
        await driver.ensure_image(IMAGE, fill)
        await driver.create_from_image(C1, IMAGE)
        assert (source / "containers/c1").is_dir()
        await driver.close_pool()
        assert not mounted(root / "storage-pools/local")
        await driver.open_pool()
        assert await driver.volumes() == [C1]
        await driver.delete_pool()
        assert list(source.iterdir()) == []

    asyncio.run(go())


@pytest.mark.parametrize("kind", [Dir, Btrfs])
def test_a_source_that_is_not_empty_is_refused(kind: type[StorageDriver], root: Path) -> None:
    (root / "source").mkdir()
    (root / "source/file").write_text("precious")
    driver = kind(Pool("local", root, {"source": str(root / "source")}), NoMounts())
    with pytest.raises(Invalid, match="not empty"):
        asyncio.run(driver.create_pool())
    assert (root / "source/file").read_text() == "precious"
