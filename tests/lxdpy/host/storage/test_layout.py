import asyncio
from pathlib import Path

import pytest

from cluster.errors import Conflict
from lxdpy.host.storage.driver import Pool, Volume
from lxdpy.host.storage.layout import (
    FEW,
    disk_usage,
    make_folder,
    make_top,
    mounted,
    move,
    part_of,
    put,
    remove_tree,
    volume_path,
)


def test_volumes_lie_where_lxd_puts_them(tmp_path: Path) -> None:
    pool = Pool("local", tmp_path, {})
    assert {
        str(volume_path(pool, volume).relative_to(tmp_path))
        for volume in (Volume("c1"), Volume("p_c1", snapshot="s"), Volume("default_d", "custom"))
    } == {
        "storage-pools/local/containers/c1",
        "storage-pools/local/containers-snapshots/p_c1/s",
        "storage-pools/local/custom/default_d",
    }


def test_nothing_but_containers_may_be_entered_by_others(tmp_path: Path) -> None:
    make_top(tmp_path / "pool")
    open_to_others = {path.name for path in (tmp_path / "pool").iterdir() if path.stat().st_mode & 0o077}
    assert open_to_others == {"containers"}


def test_putting_in_place_swaps_old_and_new(tmp_path: Path) -> None:
    path, part = tmp_path / "volume", part_of(tmp_path / "volume")
    make_folder(part, 0o700)
    (part / "new").touch()
    put(part, path)
    assert (path / "new").exists()
    make_folder(part, 0o700)
    put(part, path)
    assert not (path / "new").exists()
    assert (part / "new").exists()


def test_a_move_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(Conflict):
        move(tmp_path / "one", tmp_path / "two")
    move(tmp_path / "one", tmp_path / "three")
    move(tmp_path / "one", tmp_path / "three")


def test_removing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/link").symlink_to(tmp_path / "precious")
    asyncio.run(remove_tree(tmp_path / "volume"))
    asyncio.run(remove_tree(tmp_path / "volume"))
    assert (tmp_path / "precious").is_dir()


def test_few_files_and_many_are_removed_alike(tmp_path: Path) -> None:
    for number in (1, FEW * 2):
        folder = tmp_path / "volume/folder"
        folder.mkdir(parents=True)
        for name in range(number):
            (folder / str(name)).touch()
        asyncio.run(remove_tree(tmp_path / "volume"))
        assert not (tmp_path / "volume").exists()


def test_what_is_no_folder_is_removed_as_well(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    asyncio.run(remove_tree(tmp_path / "link"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_mount_points_are_told_from_folders(tmp_path: Path) -> None:
    assert mounted(Path("/proc"))
    assert not mounted(tmp_path)
    assert not mounted(tmp_path / "missing")


def test_what_is_not_there_takes_no_space(tmp_path: Path) -> None:
    assert asyncio.run(disk_usage(tmp_path / "missing")) == 0
