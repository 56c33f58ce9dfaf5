"""Device files: which is given, what is remembered, and what is missed."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.errors import Invalid
from lxdpy.host.devices.driver import Changing, Node, Seat
from lxdpy.host.devices.unix_file import UnixBlock, UnixChar
from lxdpy.host.devices.unix_options import DeviceMissing


def seat(**options: str) -> Seat:
    return Seat(instance="default/c1", name="d", options={"type": "unix-char", **options})


def nodes(where: Seat) -> tuple[Node, ...]:
    return asyncio.run(UnixChar().start(where)).nodes


def test_a_file_has_the_hosts_numbers_and_the_owner_that_was_asked_for() -> None:
    where = seat(source="/dev/null", path="/dev/mine", uid="1000", gid="5", mode="0600")
    assert nodes(where) == (
        Node(path="/dev/mine", major=1, minor=3, source="/dev/null", uid=1000, gid=5, mode=0o600),
    )
    assert nodes(seat(path="/dev/null"))[0].mode == 0o660


def test_numbers_that_are_given_need_no_file_of_the_host() -> None:
    assert nodes(seat(path="/dev/mine", major="10", minor="7")) == (
        Node(path="/dev/mine", major=10, minor=7),
    )


def test_a_missing_file_is_an_error_only_if_it_is_required(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(DeviceMissing, match=gone):
        nodes(seat(source=gone))
    assert nodes(seat(source=gone, required="false")) == ()


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(Invalid, match="Not a character device: /etc/passwd"):
        nodes(seat(source="/etc/passwd"))
    with pytest.raises(Invalid, match="Not a block device: /dev/null"):
        asyncio.run(UnixBlock().start(replace(seat(), options={"type": "unix-block", "path": "/dev/null"})))


def test_what_was_given_is_taken_though_the_host_has_it_no_more(tmp_path: Path) -> None:
    file = tmp_path / "a,b=c"
    file.symlink_to("/dev/zero")
    where = seat(source=str(file), path="/dev/zero,1", required="false")
    given = asyncio.run(UnixChar().start(where))
    file.unlink()
    taken = asyncio.run(UnixChar().detach(replace(where, volatile=given.volatile)))
    assert [(node.path, node.major, node.minor) for node in taken.nodes] == [("/dev/zero,1", 1, 5)]
    assert asyncio.run(UnixChar().start(where)).volatile == {"nodes": ""}


def test_only_what_is_not_required_is_watched() -> None:
    driver = UnixChar()
    assert isinstance(driver, Changing)
    assert driver.watched({"path": "/dev/x", "required": "false"}) == ("/dev/x",)
    assert driver.watched({"path": "/dev/x"}) == ()
    assert driver.watched({"path": "/dev/x", "major": "1", "minor": "1", "required": "false"}) == ()
