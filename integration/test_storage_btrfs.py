"""What only btrfs pools do."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cluster.errors import Invalid, Unsupported
from integration.test_storage import MIB, on_dir
from lxdpy.host.run import CommandFailed, run
from lxdpy.host.storage import btrfs_ioctl
from lxdpy.host.storage.btrfs import Btrfs
from lxdpy.host.storage.driver import Pool, StorageDriver, Volume
from lxdpy.host.storage.layout import part_of
from tests.contracts.storage import C1, IMAGE, SNAP, NoMounts, fill

pytestmark = pytest.mark.root


def on_btrfs(root: Path, check: Callable[[StorageDriver], Awaitable[None]]) -> None:
    on_dir(root, check, Btrfs)


def test_btrfs_keeps_a_volume_within_its_size(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        limited = Volume("c2", size=8 * MIB)
        await driver.create_from_image(limited, IMAGE)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            write(driver.path(limited) / "rootfs/file", 12)
        assert caught.value.errno == errno.EDQUOT
        await driver.resize(Volume("c2", size=32 * MIB))
        write(driver.path(limited) / "rootfs/file", 12)
        await driver.resize(Volume("c2"))
        write(driver.path(limited) / "rootfs/file", 40)

    on_btrfs(root, check)


def write(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def test_btrfs_takes_inner_subvolumes_along(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        inner = driver.path(C1) / "rootfs/var/lib/inner"
        inner.parent.mkdir(parents=True)
        btrfs_ioctl.create(inner)
        (inner / "file").write_text("before")
        for number in range(300):  # more than the kernel names at once
            btrfs_ioctl.create(inner / f"v{number}")
        assert len(btrfs_ioctl.children(inner)) == 300
        await driver.snapshot(SNAP)
        (inner / "file").write_text("after")
        await driver.restore(SNAP)
        assert (inner / "file").read_text() == "before"
        assert (inner / "v299").is_dir()
        btrfs_ioctl.set_read_only(inner, True)
        await driver.delete(C1)
        assert await driver.volumes() == []

    on_btrfs(root, check)


def test_btrfs_on_a_device_refuses_what_holds_another_file_system(root: Path) -> None:
    async def go(device: str) -> None:
        driver = Btrfs(Pool("local", root, {"source": device}), NoMounts())
        await run("mkfs.ext4", "-q", device)
        with pytest.raises(CommandFailed, match="filesystem"):
            await driver.create_pool()
        await run("wipefs", "--all", device)
        await driver.create_pool()
        await driver.ensure_image(IMAGE, fill)
        await driver.close_pool()
        await driver.create_pool()  # as after a crash before the pool's row said Created
        assert await driver.images() == [IMAGE]
        await driver.delete_pool()
        await driver.create_pool()
        assert await driver.images() == []
        await driver.delete_pool()

    with (root / "disk").open("wb") as file:
        file.truncate(192 * MIB)
    made = subprocess.run(
        ["losetup", "--find", "--show", root / "disk"], capture_output=True, text=True, check=True
    )
    device = made.stdout.strip()
    try:
        asyncio.run(go(device))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_btrfs_in_a_folder_of_another_btrfs(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        source = root / "storage-pools/local/custom/shared"
        source.mkdir()
        inner = Btrfs(Pool("inner", root, {"source": str(source)}), NoMounts())
        await inner.create_pool()
        await inner.ensure_image(IMAGE, fill)
        await inner.create_from_image(C1, IMAGE)
        await inner.delete_pool()
        assert list(source.iterdir()) == []

    on_btrfs(root, check)


def test_btrfs_refuses_a_folder_elsewhere_and_a_disk_too_small(root: Path) -> None:
    (root / "source").mkdir()
    elsewhere = Btrfs(Pool("local", root, {"source": str(root / "source")}), NoMounts())
    with pytest.raises(Invalid, match="not on btrfs"):
        asyncio.run(elsewhere.create_pool())
    with pytest.raises(Invalid, match="at least 128MiB"):
        asyncio.run(Btrfs(Pool("local", root, {"size": "1MiB"}), NoMounts()).create_pool())
    assert list((root / "source").iterdir()) == []
    assert not list((root / "disks").glob("*")) if (root / "disks").exists() else True


def test_a_limit_where_quotas_are_off_is_refused(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        await run("btrfs", "quota", "disable", root / "storage-pools/local")
        await driver.resize(C1)
        with pytest.raises(Unsupported, match="Quotas are off"):
            await driver.resize(Volume("c1", size=MIB))
        assert await driver.used(C1) > 0

    on_btrfs(root, check)


def test_a_pool_made_over_an_older_ones_file_has_what_that_has(root: Path) -> None:
    """As by a server that is set up anew, whose database was lost."""

    async def check(older: StorageDriver) -> None:
        await older.create(C1)
        await older.close_pool()
        newer = Btrfs(Pool("local", root, {"size": "160MiB"}), NoMounts())
        await newer.create_pool()
        assert await newer.volumes() == [C1]

    on_btrfs(root, check)


def test_what_a_crash_left_unfinished_keeps_no_volume_from_being_deleted(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        await driver.snapshot(SNAP)
        left = part_of(driver.path(Volume("c1", snapshot="later")))
        btrfs_ioctl.snapshot(driver.path(C1), left, read_only=True)
        await driver.delete(C1)
        assert await driver.volumes() == []

    on_btrfs(root, check)


def test_what_was_being_sent_when_a_daemon_died_goes_with_the_next_start(root: Path) -> None:
    async def check(driver: StorageDriver) -> None:
        top = root / "storage-pools/local"
        sending = driver.send(C1, None, {"backup.yaml": b"x"})
        await anext(sending)
        assert len(list(top.glob(".send-*/c1"))) == 1
        await sending.aclose()
        assert not list(top.glob(".*"))
        (top / ".send-left").mkdir()
        btrfs_ioctl.snapshot(driver.path(C1), top / ".send-left/c1", read_only=True)
        await driver.open_pool()
        assert not list(top.glob(".*"))

    on_btrfs(root, check)
