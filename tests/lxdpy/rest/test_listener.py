"""Real sockets on loopback, aiohttp behind them."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cluster.address import Address, parse_address
from cluster.errors import Invalid
from cluster.tls.certificates import KeyPair, ensure
from cluster.tls.contexts import RAFT_PROTOCOL, pinned_client
from cluster.tls.openssl import Adapter
from lxdpy.rest.listener import Listener, peer_of

BIG = bytes(range(256)) * 40_000  # 10 MB, more than every buffer on the way


async def who(request: web.Request) -> web.Response:
    peer = peer_of(request)
    return web.json_response(
        [peer.kind, peer.uid, peer.pid, peer.address, peer.fingerprint, len(peer.certificate)]
    )


async def echo(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    return response


async def talk(request: web.Request) -> web.WebSocketResponse:
    words = web.WebSocketResponse(max_msg_size=0)
    await words.prepare(request)
    async for message in words:
        await words.send_bytes(message.data)
    return words


class House:
    """A listener with a small application behind it."""

    def __init__(self, listener: Listener, server: web.Server, keys: KeyPair) -> None:
        self.listener = listener
        self.server = server
        self.keys = keys
        self.tls = Adapter(keys)
        self.raft: asyncio.Queue[socket.socket] = asyncio.Queue()

    async def listen(self, *addresses: str) -> None:
        await self.listener.listen(addresses, self.server, self.tls, self.raft.put_nowait)

    def port(self, turn: int = 0) -> int:
        return parse_address(self.listener.addresses[turn])[1]

    def client(self, own: KeyPair | None = None) -> aiohttp.ClientSession:
        tls = pinned_client(own, self.keys.fingerprint())
        return aiohttp.ClientSession(
            f"https://127.0.0.1:{self.port()}", connector=aiohttp.TCPConnector(ssl=tls)
        )


def housed(keys: KeyPair, scenario: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        application = web.Application(client_max_size=1 << 30)
        application.add_routes([web.get("/who", who), web.put("/echo", echo), web.get("/talk", talk)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        assert runner.server is not None
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            house = House(Listener(tasks), runner.server, keys)
            try:
                await scenario(house)
            finally:
                await house.listener.close()
                await house.listener.close()  # once more does no harm
                await runner.cleanup()
                while not house.raft.empty():
                    house.raft.get_nowait().close()

    asyncio.run(run())


def test_a_client_is_known_by_its_certificate(keys: tuple[KeyPair, KeyPair]) -> None:
    server, own = keys

    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        async with house.client(own) as client, client.get("/who") as answer:
            kind, uid, _, address, fingerprint, size = await answer.json()
            assert (kind, uid) == ("tls", -1)
            assert address.startswith("127.0.0.1:")
            assert fingerprint == own.fingerprint()
            assert size == len(own.der())

    housed(server, scenario)


def test_a_client_without_certificate_is_served_as_nobody(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        async with house.client() as client, client.get("/who") as answer:
            assert (await answer.json())[4:] == ["", 0]

    housed(keys[0], scenario)


def test_much_goes_both_ways_at_once(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        async with house.client(keys[1]) as client, client.put("/echo", data=BytesIO(BIG)) as answer:
            assert await answer.read() == BIG

    housed(keys[0], scenario)


def test_a_slow_reader_holds_up_the_sender(keys: tuple[KeyPair, KeyPair]) -> None:
    """Back-pressure: what nobody reads is not piled up in memory."""

    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        sent = 0

        async def endless() -> None:
            nonlocal sent
            tls = pinned_client(None, house.keys.fingerprint())
            _, writer = await asyncio.open_connection("127.0.0.1", house.port(), ssl=tls)
            writer.write(b"PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                    await writer.drain()
                    sent += 65536
            finally:
                writer.transport.abort()

        task = asyncio.create_task(endless())
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 64 << 20
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    housed(keys[0], scenario)


def test_websockets_carry_large_messages(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        async with house.client(keys[1]) as client, client.ws_connect("/talk", max_msg_size=0) as words:
            for size in (0, 1, 100_000, len(BIG)):
                await words.send_bytes(BIG[:size])
                assert await words.receive_bytes() == BIG[:size]

    housed(keys[0], scenario)


def test_many_clients_at_once_are_served(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")

        async def visit() -> str:
            async with house.client(keys[1]) as client, client.get("/who") as answer:
                return str((await answer.json())[4])

        assert set(await asyncio.gather(*(visit() for _ in range(40)))) == {keys[1].fingerprint()}

    housed(keys[0], scenario)


def test_raft_s_connections_go_to_raft(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        tls.set_alpn_protocols([RAFT_PROTOCOL])
        async with asyncio.TaskGroup() as tasks:
            dialing = tasks.create_task(refused(house.port(), tls))
            (await house.raft.get()).close()
            await dialing

    async def refused(port: int, tls: ssl.SSLContext) -> None:
        with pytest.raises(OSError, match=r"(?i)eof|reset|lost|closed"):
            await asyncio.open_connection("127.0.0.1", port, ssl=tls)

    housed(keys[0], scenario)


def test_a_client_without_tls_is_hung_up_on_and_others_go_on(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        async with house.client() as client, client.get("/who") as answer:
            assert answer.status == 200

    housed(keys[0], scenario)


def test_a_new_certificate_is_served_without_a_restart(keys: tuple[KeyPair, KeyPair], tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0")
        async with house.client() as old:
            assert (await old.get("/who")).status == 200
            house.keys = ensure(tmp_path, "newer")
            house.tls.replace(house.keys)
            async with house.client() as new, new.get("/who") as answer:
                assert answer.status == 200
            async with old.get("/who") as answer:  # on the connection it has
                assert answer.status == 200

    housed(keys[0], scenario)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_an_address_may_come_and_go_without_disturbing_the_others(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        stays, goes = f"127.0.0.1:{free_port()}", f"127.0.0.2:{free_port()}"
        await house.listen(stays, goes)
        assert house.listener.addresses == [stays, goes]
        async with house.client(keys[1]) as client, client.ws_connect("/talk") as words:
            await house.listen(stays)
            assert house.listener.addresses == [stays]
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*parse_address(goes))
            await words.send_bytes(b"still here")
            assert await words.receive_bytes() == b"still here"
            await house.listen()
            assert house.listener.addresses == []
            await words.send_bytes(b"still here")
            assert await words.receive_bytes() == b"still here"

    housed(keys[0], scenario)


def test_a_wildcard_replaces_and_is_replaced_by_an_address_of_its_port(
    keys: tuple[KeyPair, KeyPair],
) -> None:
    async def scenario(house: House) -> None:
        port = free_port()
        await house.listen(f"127.0.0.1:{port}")
        await house.listen(f":{port}")
        async with house.client() as client:
            assert (await client.get("/who")).status == 200
        await house.listen(f"127.0.0.1:{port}")
        assert house.listener.addresses == [f"127.0.0.1:{port}"]

    housed(keys[0], scenario)


def test_what_a_wildcard_covers_needs_no_socket_of_its_own(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        port = free_port()
        await house.listen(f"[::]:{port}", f"127.0.0.1:{port}", f":{port}", f"0.0.0.0:{port}")
        assert len(house.listener.addresses) == 1
        await house.listen(f"0.0.0.0:{port}", f"127.0.0.1:{port}")
        assert house.listener.addresses == [f"0.0.0.0:{port}"]

    housed(keys[0], scenario)


def test_an_address_that_cannot_be_had_changes_nothing(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        await house.listen("127.0.0.1:0", "127.0.0.2:0")
        before = house.listener.addresses
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for bad in (f"127.0.0.1:{port}", f"192.0.2.1:{port}", "no.such.host.invalid"):
                with pytest.raises(Invalid, match=rf"Cannot listen on {bad.split(':')[0]}"):
                    await house.listen(f"127.0.0.3:{free_port()}", bad)
                assert sorted(house.listener.addresses) == sorted(before)
        async with house.client() as client, client.get("/who") as answer:
            assert answer.status == 200

    housed(keys[0], scenario)


def test_who_listens_while_another_does_takes_turns(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(house: House) -> None:
        wanted = f"127.0.0.1:{free_port()}"
        await asyncio.gather(house.listen(wanted), house.listen(wanted))
        assert house.listener.addresses == [wanted]

    housed(keys[0], scenario)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8443", ("", 8443)),
        ("10.0.0.1", ("10.0.0.1", 8443)),
        ("10.0.0.1:443", ("10.0.0.1", 443)),
        ("[::]:8443", ("::", 8443)),
        ("[fe80::1%eth0]", ("fe80::1%eth0", 8443)),
        ("::1", ("::1", 8443)),
        ("n1.example", ("n1.example", 8443)),
        (" n1:1 ", ("n1", 1)),
    ],
)
def test_addresses_are_read_as_lxd_does(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "a:b", "1.2.3.4:", "1.2.3.4:70000", "[1.2.3", "[x]:1", "[]:1", "a b", "a/b:1", "1:2:3"]
)
def test_what_is_no_address_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parse_address(text)
