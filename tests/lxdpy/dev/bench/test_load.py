import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lxdpy.dev.bench.load import Client, Refused, one_by_one, rate, request

Answer = Callable[[bytes], bytes]


def plain(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def against(path: Path, answer: Answer, use: Callable[[Client], Awaitable[object]]) -> tuple[object, int]:
    """What `use` came to, and how many connections it took."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length:")[1].split()[0])
                reply = answer(head + await reader.readexactly(size))
                writer.write(reply)
                if b"connection: close" in reply.lower():
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def both() -> object:
        async with await asyncio.start_unix_server(serve, str(path)), Client(path) as client:
            return await use(client)

    return asyncio.run(both()), connections


def test_a_connection_is_kept(tmp_path: Path) -> None:
    async def use(client: Client) -> object:
        return [await client.ask("GET", "/1.0") for _ in range(3)]

    found, connections = against(tmp_path / "s", lambda _: plain(b'{"metadata":1}'), use)
    assert found == [1, 1, 1]
    assert connections == 1


def test_a_closed_connection_is_replaced(tmp_path: Path) -> None:
    close = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{"metadata":1}'

    async def use(client: Client) -> object:
        first = await client.ask("GET", "/1.0")
        await asyncio.sleep(0.05)  # the other side's close is on its way
        return [first, await client.ask("GET", "/1.0")]

    found, connections = against(tmp_path / "s", lambda _: close, use)
    assert found == [1, 1]
    assert connections == 2


def test_a_body_in_pieces_is_put_together(tmp_path: Path) -> None:
    pieces = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"metadata\r\n4\r\n":1}\r\n0\r\n\r\n'

    async def use(client: Client) -> object:
        return [await client.ask("GET", "/1.0"), await client.ask("GET", "/1.0")]

    assert against(tmp_path / "s", lambda _: pieces, use) == ([1, 1], 1)


def test_an_operation_is_waited_for(tmp_path: Path) -> None:
    def answer(asked: bytes) -> bytes:
        if asked.startswith(b"GET /1.0/operations/7/wait "):
            return plain(b'{"metadata":{"status_code":200,"metadata":{"a":1}}}')
        assert asked.startswith(b"POST /1.0/instances HTTP/1.1\r\n")
        assert asked.endswith(b'\r\n\r\n{"name":"c1"}')
        begun = b'{"type":"async","operation":"/1.0/operations/7?project=p","metadata":{"class":"task"}}'
        return plain(begun, "202 Accepted")

    async def use(client: Client) -> object:
        return await client.done("POST", "/1.0/instances", {"name": "c1"})

    assert against(tmp_path / "s", answer, use)[0] == {"a": 1}


def test_a_failed_operation_is_a_refusal(tmp_path: Path) -> None:
    def answer(asked: bytes) -> bytes:
        if b"/wait" in asked:
            return plain(b'{"metadata":{"status_code":400,"err":"No room","metadata":null}}')
        return plain(b'{"type":"async","operation":"/1.0/operations/7","metadata":{"class":"task"}}')

    async def use(client: Client) -> object:
        return await client.done("PUT", "/1.0/x")

    with pytest.raises(Refused, match="No room"):
        against(tmp_path / "s", answer, use)


def test_an_error_is_a_refusal(tmp_path: Path) -> None:
    async def use(client: Client) -> object:
        return await client.ask("GET", "/1.0/x")

    with pytest.raises(Refused, match="Not found"):
        against(tmp_path / "s", lambda _: plain(b'{"error":"Not found"}', "404 Not Found"), use)


def test_headers_are_spelled_with_hyphens() -> None:
    assert request("POST", "/1.0/images", b"x", X_LXD_filename="f") == (
        b"POST /1.0/images HTTP/1.1\r\nHost: unix.socket\r\nContent-Length: 1\r\nX-LXD-filename: f\r\n\r\nx"
    )


def test_each_is_timed_alone_in_milliseconds() -> None:
    async def work(number: int) -> None:
        await asyncio.sleep(number / 1000)

    slow, quick = asyncio.run(one_by_one(work, [300, 0]))
    assert 300 <= slow < 60_000
    assert quick < slow


def test_no_more_are_under_way_than_asked_for_and_none_is_left_out() -> None:
    done: list[int] = []
    under_way = most = 0

    async def work(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        done.append(number)

    assert asyncio.run(rate(work, range(20), 4)) > 0
    assert sorted(done) == list(range(20))
    assert most == 4
