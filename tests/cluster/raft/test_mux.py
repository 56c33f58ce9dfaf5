"""The one port: whose connection it is, however the first message comes; and nobody keeps others waiting."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.raft.mux import PEEK, Mux, alpn_of
from tests.effort import examples


def hello(*protocols: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "n1") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


def in_records(message: bytes, size: int) -> bytes:
    """The same handshake message cut into records of that size."""
    body = message[5:]
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in cut)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_offered_protocols_are_found(version: ssl.TLSVersion) -> None:
    assert alpn_of(hello("raft/1", version=version)) == (b"raft/1",)
    assert alpn_of(hello("h2", "http/1.1", version=version)) == (b"h2", b"http/1.1")
    assert alpn_of(hello(version=version)) == ()


def test_a_part_of_it_is_not_judged() -> None:
    whole = hello("http/1.1", "raft/1")
    assert {alpn_of(whole[:end]) for end in range(len(whole))} == {None}


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100])
def test_a_message_in_several_records_is_put_together(size: int) -> None:
    assert alpn_of(in_records(hello("raft/1"), size)) == (b"raft/1",)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",  # a handshake, but not a ClientHello
        b"\x16\x03\x01\x00\x00",  # an empty record: a stream of them would never end
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",  # an empty ClientHello
        b"\x16\x03\x01\x00\x02\x01\x00\x17\x03\x01",  # something else in the middle
    ],
)
def test_what_is_no_client_hello_is_not_raft_s(data: bytes) -> None:
    assert alpn_of(data) == ()


@examples(300, deadline=20_000)
@given(st.binary(max_size=PEEK))
def test_any_bytes_are_judged(data: bytes) -> None:
    alpn_of(data)
    alpn_of(b"\x16\x03\x01" + data)
    alpn_of(b"\x16\x03\x01\x20\x00\x01\x00\x00\x40" + data)


REAL = hello("http/1.1", "raft/1")


@examples(300, deadline=20_000)
@given(
    st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(REAL)),
)
def test_a_damaged_hello_is_judged(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(REAL)
    for at, value in changes:
        data[at] = value
    verdict = alpn_of(bytes(data[:end]))
    assert verdict is None or all(isinstance(name, bytes) for name in verdict)


class Sorted:
    """A running Mux, and what came out of it."""

    def __init__(self, undecided: float = 5.0, half_open: int = 512) -> None:
        self.raft: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.http: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.mux = Mux(self.raft.put_nowait, self.http.put, undecided, half_open)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.address = self.listening.getsockname()

    def connect(self, *words: bytes) -> socket.socket:
        client = socket.create_connection(self.address, timeout=5)
        for word in words:
            client.sendall(word)
        client.setblocking(False)
        return client


def sorting(
    scenario: Callable[[Sorted], Awaitable[None]], undecided: float = 5.0, half_open: int = 512
) -> None:
    async def run() -> None:
        running = Sorted(undecided, half_open)
        task = asyncio.create_task(running.mux.serve(running.listening))
        try:
            async with asyncio.timeout(20):
                await scenario(running)
        finally:
            task.cancel()
            await asyncio.wait([task])
            running.listening.close()
            for queue in (running.raft, running.http):
                while not queue.empty():
                    queue.get_nowait().close()

    asyncio.run(run())


def test_raft_and_http_go_their_ways_unread() -> None:
    async def scenario(running: Sorted) -> None:
        raft_words, http_words = hello("raft/1"), hello("http/1.1")
        clients = running.connect(raft_words), running.connect(http_words)
        with await running.raft.get() as raft, await running.http.get() as http:
            assert raft.recv(PEEK) == raft_words
            assert http.recv(PEEK) == http_words
            assert not raft.getblocking()
        for client in clients:
            client.close()

    sorting(scenario)


def test_plain_http_is_the_api_s_to_refuse() -> None:
    async def scenario(running: Sorted) -> None:
        with running.connect(b"GET / HTTP/1.1\r\n\r\n"), await running.http.get() as http:
            assert http.recv(3) == b"GET"

    sorting(scenario)


def test_a_hello_that_comes_in_pieces_is_waited_for() -> None:
    async def scenario(running: Sorted) -> None:
        whole = in_records(hello("raft/1"), 120)
        with running.connect() as client:
            for at in range(0, len(whole), 40):
                await asyncio.get_running_loop().sock_sendall(client, whole[at : at + 40])
                await asyncio.sleep(0.001)
            with await running.raft.get() as raft:
                assert raft.recv(PEEK) == whole

    sorting(scenario)


def test_a_hello_beyond_the_limit_is_not_raft_s() -> None:
    async def scenario(running: Sorted) -> None:
        endless = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb" + bytes(PEEK)
        with running.connect(endless), await running.http.get() as http:
            assert http.recv(9) == endless[:9]

    sorting(scenario)


def test_who_says_nothing_is_dropped_in_time() -> None:
    async def scenario(running: Sorted) -> None:
        loop = asyncio.get_running_loop()
        with running.connect() as silent, running.connect(hello("raft/1")[:50]) as slow:
            assert await loop.sock_recv(silent, 1) == b""
            with suppress(ConnectionResetError):  # what it sent was never read
                assert await loop.sock_recv(slow, 1) == b""
        assert running.raft.empty()
        assert running.http.empty()

    sorting(scenario, undecided=0.1)


def test_who_hangs_up_is_forgotten() -> None:
    async def scenario(running: Sorted) -> None:
        running.connect().close()
        running.connect(b"\x16").close()
        with running.connect(hello("raft/1")):
            (await running.raft.get()).close()

    sorting(scenario)


def test_the_silent_do_not_keep_out_those_who_speak() -> None:
    async def scenario(running: Sorted) -> None:
        loop = asyncio.get_running_loop()
        silent = [running.connect() for _ in range(20)]
        with running.connect(hello("raft/1")):
            (await running.raft.get()).close()
        assert await loop.sock_recv(silent[0], 1) == b""  # the oldest made room
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await loop.sock_recv(silent[-1], 1)
        for client in silent:
            client.close()

    sorting(scenario, half_open=5)
