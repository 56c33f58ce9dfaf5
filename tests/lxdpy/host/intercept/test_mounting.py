import pytest

from lxdpy.host.intercept.mounting import checked, is_on_device


def test_an_ext4_does_not_stop_the_host_though_it_may_ask_for_that_itself() -> None:
    assert checked("ext4", "") == "errors=remount-ro"
    assert checked("ext4", "noload, errors=continue") == "noload,errors=continue"
    assert checked("xfs", "norecovery") == "norecovery"


@pytest.mark.parametrize("data", ["errors=panic", "ro,journal_dev=0x801"])
def test_options_that_reach_beyond_the_device_are_refused(data: str) -> None:
    with pytest.raises(PermissionError):
        checked("ext4", data)


def test_what_needs_no_device_is_told_from_what_does() -> None:
    assert not is_on_device("tmpfs")
    assert not is_on_device("no-such-fs")
