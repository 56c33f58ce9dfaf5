"""A simplestreams server over HTTPS: what it may do, and what is not followed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from cluster.errors import Error, Invalid, NotFound, Unavailable
from cluster.tls.certificates import KeyPair, make, write
from lxdpy.resources.images import remote_streams
from lxdpy.resources.images.actions import bounded
from lxdpy.resources.images.model import Asked
from lxdpy.resources.images.products import INDEX, Found
from tests.lxdpy.resources.images.test_products import METADATA, SQUASHFS, A, listed

LISTS = b'{"index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json"}}}'


def usual(images: bytes = b"") -> dict[str, bytes]:
    return {INDEX: LISTS, "streams/v1/images.json": images or listed(METADATA, SQUASHFS)}


@asynccontextmanager
async def serving(root: Path, files: dict[str, bytes], moved: dict[str, str]) -> AsyncIterator[Asked]:
    """How to ask for alpine/3.18 there; `moved` are redirects."""
    pair = KeyPair(root / "server.crt", root / "server.key")
    write(pair, *make("server"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        if path in moved:
            return web.Response(status=302, headers={"Location": moved[path]})
        return web.Response(body=files[path]) if path in files else web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield Asked(f"https://{host}:{port}", "alpine/3.18", "", pair.pem(), "simplestreams")
    finally:
        await runner.cleanup()


def find(root: Path, files: dict[str, bytes], moved: dict[str, str] | None = None, proxy: str = "") -> Found:
    async def go() -> Found:
        async with serving(root, files, moved or {}) as asked, remote_streams.opened(asked, proxy) as server:
            return await server.find("x86_64")

    return asyncio.run(go())


def test_an_image_is_found_where_the_server_sends_its_clients(tmp_path: Path) -> None:
    files = {f"mirror/{path}": text for path, text in usual().items()}
    found = find(tmp_path, files, {path: f"/mirror/{path}" for path in usual()})
    assert (found.fingerprint, found.alias) == (A, "alpine/3.18")


@pytest.mark.parametrize("place", ["http://127.0.0.1/index.json", "file:///etc/passwd", f"/{INDEX}"])
def test_redirects_to_what_is_not_https_or_without_end_are_not_followed(tmp_path: Path, place: str) -> None:
    with pytest.raises(Error, match="not followed"):
        find(tmp_path, {}, {INDEX: place})


@pytest.mark.parametrize(
    ("files", "kind", "why"),
    [
        ({}, NotFound, "answers 404 for streams/v1/index.json"),
        ({INDEX: b"<html>"}, Error, "none of a simplestreams server"),
        ({INDEX: b" " * (remote_streams.LARGEST_INDEX + 1)}, Error, "more than"),
        (usual(listed(METADATA)), NotFound, 'has no image "alpine/3.18" for x86_64'),
    ],
)
def test_a_server_without_the_image_is_told_of(
    tmp_path: Path, files: dict[str, bytes], kind: type[Error], why: str
) -> None:
    with pytest.raises(kind, match=why):
        find(tmp_path, files)


def test_a_proxy_is_asked_for_the_connection(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def go() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = Asked("https://images.test", "alpine", protocol="simplestreams")
        async with server, remote_streams.opened(asked, f"http://127.0.0.1:{port}") as streams:
            with pytest.raises(Unavailable, match=r"^Cannot get streams/v1/index[.]json from images[.]test"):
                await streams.find("x86_64")

    asyncio.run(go())
    assert heard == [b"CONNECT images.test:443 HTTP/1.1\r\n"]


def test_a_server_that_sends_too_much_is_stopped() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10

    async def go() -> int:
        passed = bounded(endless(), 25, "images.test")
        done = len(await anext(passed)) + len(await anext(passed))
        with pytest.raises(Invalid, match="more than the 25 bytes"):
            await anext(passed)
        return done

    assert asyncio.run(go()) == 20


def test_a_server_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxdpy.resources.images.actions.SILENCE", 0.01)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def go() -> None:
        passed = bounded(silent(), 25, "images.test")
        assert await anext(passed) == b"x"
        with pytest.raises(Unavailable, match=r"sent nothing for 0[.]01 s, at 1 of 25 bytes"):
            await anext(passed)

    asyncio.run(go())
