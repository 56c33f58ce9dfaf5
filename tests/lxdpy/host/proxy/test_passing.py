"""What is passed on, both ways: by the loop of a proxy's process, over sockets of this host."""

import gc
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lxdpy.host.proxy.datagrams import Datagrams
from lxdpy.host.proxy.loop import Loop
from lxdpy.host.proxy.program import Listener
from lxdpy.host.proxy.sockets import Address, Owner, listen, name_of, open_socket

# What is still open when the loop is stopped goes with it, as it would with the process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

OWNER = Owner(-1, -1, 0o600)
MANY = 64 << 20  # bytes: more than all buffers on the way have room for
WITHIN = 20.0  # seconds


def at(kind: str, port: int = 0) -> Address:
    return {"kind": kind, "host": "127.0.0.1", "port": port}


def server(kind: str = "tcp") -> tuple[socket.socket, Address]:
    """One that the proxy connects to; blocking."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.settimeout(WITHIN)
    made.bind(("127.0.0.1", 0))
    if kind == "tcp":
        made.listen()
    return made, at(kind, made.getsockname()[1])


@contextmanager
def passing(source: Address, target: Address, *, header: bool = False) -> Iterator[Any]:
    """The address that the proxy listens on."""
    loop, came = Loop(), listen(source, OWNER)
    dialed: list[socket.socket] = []  # for senders, who are forgotten after minutes only

    def to_target() -> tuple[socket.socket, Any]:
        dialed.append(open_socket(target))
        return dialed[-1], name_of(target)

    if source["kind"] == "udp":
        Datagrams(loop, came, to_target)
    else:
        Listener(loop, came, target, header=header)
    wake, woken = socket.socketpair()
    over = threading.Event()
    loop.want(woken.fileno(), over.set, read=True, write=False)

    def turn() -> None:
        while not over.is_set():
            loop.turn()

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield came.getsockname()
    finally:
        wake.send(b"!")
        thread.join()
        for end in (wake, woken, came, *dialed):
            end.close()
        gc.collect()


def dial(address: Any) -> socket.socket:
    made = socket.create_connection(address, timeout=WITHIN)
    made.settimeout(WITHIN)
    return made


def fill(end: socket.socket) -> int:
    """Send until no more is taken: nobody reads, so what is under way fills up. How many bytes were taken."""
    sent = 0
    end.setblocking(False)
    while sent < MANY:
        try:
            sent += end.send(b"x" * (1 << 16))
        except BlockingIOError:
            end.settimeout(WITHIN)
            return sent
    raise AssertionError("everything was taken though nobody read")


def all_of(end: socket.socket) -> bytes:
    found = b""
    while piece := end.recv(1 << 20):
        found += piece
    return found


def test_the_end_of_one_way_leaves_the_other_open() -> None:
    behind, target = server()
    with behind, passing(at("tcp"), target) as front, dial(front) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        inner, _ = behind.accept()
        with inner:
            inner.settimeout(WITHIN)
            assert all_of(inner) == b"question"
            inner.sendall(b"answer")
        assert all_of(client) == b"answer"


def test_much_comes_through_whole_though_the_reader_is_late() -> None:
    behind, target = server()
    with behind, passing(at("tcp"), target) as front, dial(front) as client:
        inner, _ = behind.accept()
        with inner:
            inner.settimeout(WITHIN)
            sent = fill(client)
            client.shutdown(socket.SHUT_WR)
            assert len(all_of(inner)) == sent


def test_one_that_does_not_read_holds_up_no_other() -> None:
    behind, target = server()
    with behind, passing(at("tcp"), target) as front, dial(front) as stuck, dial(front) as client:
        first, _ = behind.accept()
        second, _ = behind.accept()
        with first, second:
            fill(stuck)
            second.settimeout(WITHIN)
            client.sendall(b"past it")
            assert second.recv(100) == b"past it"


def test_who_cannot_be_reached_breaks_the_connection_off() -> None:
    behind, target = server()
    behind.close()
    with passing(at("tcp"), target) as front, pytest.raises(ConnectionResetError), dial(front) as client:
        client.recv(1)


def test_a_side_that_breaks_off_is_passed_on() -> None:
    behind, target = server()
    with behind, passing(at("tcp"), target) as front, dial(front) as client:
        inner, _ = behind.accept()
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        inner.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_header_tells_who_is_there() -> None:
    behind, target = server()
    with behind, passing(at("tcp"), target, header=True) as front, dial(front) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        inner, _ = behind.accept()
        with inner:
            inner.settimeout(WITHIN)
            mine, theirs = client.getsockname()[1], front[1]
            assert all_of(inner) == f"PROXY TCP4 127.0.0.1 127.0.0.1 {mine} {theirs}\r\nhello".encode()


def test_an_abstract_socket_leads_to_a_port_and_has_no_header_of_its_own() -> None:
    behind, target = server()
    word = f"lxdpy-test-{os.getpid()}"  # as others may run the same test
    name: Address = {"kind": "unix", "host": f"@{word}", "port": 0}
    with behind, passing(name, target, header=True), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WITHIN)
        client.connect(f"\0{word}")
        client.shutdown(socket.SHUT_WR)
        inner, _ = behind.accept()
        with inner:
            inner.settimeout(WITHIN)
            assert all_of(inner) == b"PROXY UNKNOWN\r\n"


def test_datagrams_keep_their_senders_apart() -> None:
    behind, target = server("udp")
    with behind, passing(at("udp"), target) as front:
        clients = [server("udp")[0] for _ in range(2)]
        for number, client in enumerate(clients):
            client.sendto(b"%d" % number, front)
        for _ in clients:
            said, sender = behind.recvfrom(100)
            behind.sendto(said + said, sender)
            behind.sendto(b"", sender)
        for number, client in enumerate(clients):
            assert client.recvfrom(100) == (b"%d%d" % (number, number), front)
            assert client.recvfrom(100) == (b"", front)  # an empty one is one, too
            client.close()


def test_datagrams_lead_to_a_stream_and_back() -> None:
    behind, target = server()
    with behind, passing(at("udp"), target) as front, server("udp")[0] as client:
        client.sendto(b"ping", front)
        inner, _ = behind.accept()
        with inner:
            inner.settimeout(WITHIN)
            assert inner.recv(100) == b"ping"
            inner.sendall(b"pong")
            assert client.recv(100) == b"pong"


def test_a_stream_leads_to_datagrams() -> None:
    behind, target = server("udp")
    with behind, passing(at("tcp"), target) as front, dial(front) as client:
        client.sendall(b"ping")
        said, sender = behind.recvfrom(100)
        behind.sendto(said[::-1], sender)
        assert client.recv(100) == b"gnip"


def test_the_file_of_a_dead_socket_is_replaced_and_no_other(tmp_path: Any) -> None:
    file = tmp_path / "s"
    address: Address = {"kind": "unix", "host": str(file), "port": 0}
    listen(address, OWNER).close()
    with listen(address, OWNER), pytest.raises(OSError, match="in use"):
        listen(address, OWNER)
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    file.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        listen(address, OWNER)
    assert file.read_text() == "mine"


def test_an_address_that_comes_later_can_be_listened_on() -> None:
    later: Address = {"kind": "tcp", "host": "192.0.2.7", "port": 0}
    with pytest.raises(OSError, match="assign") as refused:
        listen(later, OWNER)
    assert refused.value.filename == "tcp:192.0.2.7:0"
    listen(later, OWNER, early=True).close()
    listen({**later, "host": "2001:db8::7"}, OWNER, early=True).close()
