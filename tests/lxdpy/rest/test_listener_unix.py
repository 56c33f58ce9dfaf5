"""The listener's unix socket."""

import grp
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from cluster.errors import Conflict, Invalid
from cluster.tls.certificates import KeyPair
from tests.lxdpy.rest.test_listener import House, housed


def unix(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://unix.socket", connector=aiohttp.UnixConnector(str(path)))


def test_on_the_unix_socket_the_kernel_says_who_it_is(keys: tuple[KeyPair, KeyPair], tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        path = tmp_path / "unix.socket"
        await house.listener.start_unix(path, None, house.server)
        async with unix(path) as client, client.get("/who") as answer:
            assert await answer.json() == ["unix", os.getuid(), os.getpid(), "", "", 0]

    housed(keys[0], scenario)


def test_the_unix_socket_is_the_group_s_and_goes_with_the_daemon(
    keys: tuple[KeyPair, KeyPair], tmp_path: Path
) -> None:
    path = tmp_path / "unix.socket"
    group = grp.getgrgid(os.getgid()).gr_name

    async def scenario(house: House) -> None:
        await house.listener.start_unix(path, group, house.server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getgid()

    housed(keys[0], scenario)
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(keys: tuple[KeyPair, KeyPair], tmp_path: Path) -> None:
    path = tmp_path / "unix.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()

    async def scenario(house: House) -> None:
        await house.listener.start_unix(path, None, house.server)
        async with unix(path) as client, client.get("/who") as answer:
            assert answer.status == 200

    housed(keys[0], scenario)


def test_the_socket_of_a_living_daemon_is_not_taken(keys: tuple[KeyPair, KeyPair], tmp_path: Path) -> None:
    path = tmp_path / "unix.socket"

    async def scenario(house: House) -> None:
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(str(path))
            living.listen()
            with pytest.raises(Conflict, match="A daemon is running"):
                await house.listener.start_unix(path, None, house.server)
        assert path.exists()

    housed(keys[0], scenario)
    assert path.exists()


def test_a_socket_that_cannot_be_made_is_said_so(keys: tuple[KeyPair, KeyPair], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    async def scenario(house: House) -> None:
        for path, group, why in (
            (tmp_path / "file", None, "In the way"),
            (tmp_path / "absent" / "unix.socket", None, "Cannot listen"),
            (tmp_path / ("x" * 200), None, "Cannot listen"),
            (tmp_path / "unix.socket", "no-such-group", "No such group"),
        ):
            with pytest.raises(Invalid, match=why):
                await house.listener.start_unix(path, group, house.server)

    housed(keys[0], scenario)
    assert (tmp_path / "file").read_text() == "mine"
