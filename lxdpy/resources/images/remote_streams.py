"""Images of simplestreams servers: plain files over HTTPS. What they hold is told in `products`."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from cluster.errors import Error, Invalid, NotFound, Unavailable
from cluster.tls.certificates import is_authority
from cluster.tls.contexts import issued_client, pinned_client
from lxdpy.client.client import CONNECT, PIECE, why
from lxdpy.host.images import Upload
from lxdpy.resources.images.model import Asked
from lxdpy.resources.images.products import (
    INDEX,
    START,
    Found,
    Product,
    address_of,
    newest,
    paths_of,
    products_of,
    starting,
)
from lxdpy.resources.images.upload import Through

ANSWER = 60.0  # seconds without a byte
READ_WITHIN = 300.0  # seconds for an index or a list, however slowly it comes
LARGEST_INDEX = 2**22  # bytes; Ubuntu's has 30 kB
LARGEST_LIST = 2**26  # bytes of a list of products; Ubuntu's of all releases has some 10 MB
MOST_LISTS = 32  # of one server
GOOD, NO_SUCH_FILE = 200, 404
REDIRECTS = 5  # one after the other; image servers send clients to mirrors
BREATH = 50  # products looked at until others get their turn: 2 ms
T = TypeVar("T")


@asynccontextmanager
async def opened(asked: Asked, proxy: str) -> AsyncIterator["Streams"]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=ANSWER)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trusting(asked.certificate)),
        timeout=timeout,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    ) as session:
        yield Streams(session, asked, proxy)


def trusting(certificate: str) -> ssl.SSLContext:
    """What the host trusts; or only the certificate (PEM) that is expected, or what that one has signed."""
    if not certificate:
        return ssl.create_default_context()
    return issued_client(certificate) if is_authority(certificate) else pinned_client(None, certificate)


class Streams:
    def __init__(self, session: aiohttp.ClientSession, asked: Asked, proxy: str) -> None:
        self._session = session
        self._asked = asked
        self._proxy = proxy or None

    async def find(self, architecture: str) -> Found:
        """By alias, then by what its fingerprint begins with. Raises NotFound, Unavailable, Error."""
        name = self._asked.name
        paths = paths_of(await self._read(INDEX, LARGEST_INDEX))[:MOST_LISTS]
        fit: dict[str, Found] = {}
        for path in paths:
            text = await self._read(path, LARGEST_LIST)
            async for product in _in_turns(products_of(text)):
                if product.is_named(name, architecture) and (found := newest(product, name)):
                    return found
                if START.fullmatch(name):
                    fit |= {found.fingerprint: found for found in starting(product, name)}
        if len(fit) > 1:
            raise Invalid(f'More than one image of {self._host} matches "{name}"', key="source.fingerprint")
        if not fit:
            raise NotFound(f'{self._host} has no image "{name[:80]}" for {architecture}', alias=name[:80])
        return fit.popitem()[1]

    async def download(self, found: Found, upload: Upload, through: Through) -> None:
        for file in found.files:
            async with self._get(file.path) as response:
                await upload.add(through(file.part, response.content.iter_chunked(PIECE)))

    async def _read(self, path: str, most: int) -> bytes:
        read = bytearray()
        async with self._get(path) as response, asyncio.timeout(READ_WITHIN):
            async for piece in response.content.iter_chunked(PIECE):
                read += piece
                if len(read) > most:
                    raise Error(f"{self._host} has more than {most} bytes in {path[:80]}")
        return bytes(read)

    @asynccontextmanager
    async def _get(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Raises NotFound, Unavailable, or what else its status means."""
        try:
            async with self._followed(address_of(self._asked.server, path)) as response:
                if response.status != GOOD:
                    text = f"{self._host} answers {response.status} for {path[:80]}"
                    raise NotFound(text) if response.status == NO_SUCH_FILE else Error(text)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"Cannot get {path[:80]} from {self._host}: {why(error)}") from None

    @asynccontextmanager
    async def _followed(self, address: str) -> AsyncIterator[aiohttp.ClientResponse]:
        for _ in range(REDIRECTS):
            if urlsplit(address).scheme != "https":
                break
            url = URL(address, encoded=True)
            async with self._session.get(url, proxy=self._proxy, allow_redirects=False) as response:
                if not 300 < response.status < 400 or "Location" not in response.headers:
                    yield response
                    return
                address = urljoin(address, response.headers["Location"])
        raise Error(f"{self._host} leads to {address[:80]}, which is not followed")

    @property
    def _host(self) -> str:
        return urlsplit(self._asked.server).netloc


async def _in_turns(products: Iterator[Product]) -> AsyncIterator[Product]:
    for number, product in enumerate(products):
        if number % BREATH == 0:
            await asyncio.sleep(0)
        yield product
