import pytest

from cluster.errors import Invalid
from lxdpy.config.key import UnknownKey
from lxdpy.host.storage.registry import DRIVERS, driver_type, pool_keys, volume_keys


def test_drivers_are_found_by_name() -> None:
    assert set(DRIVERS) >= {"dir", "btrfs"}
    assert all(driver_type(name).name == name for name in DRIVERS)


def test_an_unknown_driver_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match='"floppy": there are dir, btrfs'):
        driver_type("floppy")


def test_a_pool_takes_its_drivers_keys_and_those_of_all() -> None:
    pool_keys("btrfs").check({"size": "5GiB", "source": "", "volume.size": "1GiB", "user.note": "x"})
    with pytest.raises(UnknownKey):
        pool_keys("dir").check({"size": "5GiB"})
    assert volume_keys("dir").find("size")


def test_sources_and_sizes_are_each_members_own() -> None:
    assert set(pool_keys("btrfs").local({"source": "/dev/x", "size": "5GiB", "volume.size": "1"})) == {
        "source",
        "size",
    }


def test_a_mount_option_that_would_keep_a_pool_shut_is_refused() -> None:
    keys = pool_keys("btrfs")
    keys.check({"btrfs.mount_options": "compress=zstd:3,noatime,user_subvol_rm_allowed"})
    with pytest.raises(Invalid, match="mount option of btrfs"):
        keys.check({"btrfs.mount_options": "compress=zstd,sparkle"})
