"""Images of servers that speak LXD's API."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from cluster.errors import Error, Invalid, Unsupported
from cluster.tls.contexts import pinned_client
from lxdpy.client.client import PIECE, Client
from lxdpy.host.images import Upload
from lxdpy.resources.images.model import Asked
from lxdpy.resources.images.products import File, Found
from lxdpy.resources.images.upload import Through, add_parts
from lxdpy.resources.wire import only_set


class Info(msgspec.Struct):
    """What the server says of an image."""

    fingerprint: str
    filename: str = ""
    size: int = 0
    architecture: str = ""
    public: bool = False
    properties: dict[str, str] = {}
    type: str = "container"
    expires_at: str | None = None
    aliases: list[dict[str, str]] | None = None


@asynccontextmanager
async def opened(asked: Asked, proxy: str) -> AsyncIterator["LxdServer"]:
    async with connected(asked.server, asked.certificate, proxy) as client:
        yield LxdServer(client, asked)


def connected(server: str, certificate: str, proxy: str = "") -> Client:
    """Any certificate that the host trusts, unless one is expected."""
    tls = pinned_client(None, certificate) if certificate else ssl.create_default_context()
    return Client.remote(urlsplit(server).netloc, tls, proxy=proxy)


class LxdServer:
    def __init__(self, client: Client, asked: Asked) -> None:
        self._client = client
        self._asked = asked

    async def find(self, architecture: str) -> Found:
        """What is meant, by alias first: it may have become another image meanwhile.

        Raises NotFound, Unavailable; Invalid if it is not of that architecture ("": any is good).
        """
        asked = self._asked
        project, fingerprint = asked.project or None, asked.fingerprint
        if asked.alias and not asked.secret:
            path = f"/1.0/images/aliases/{quote(asked.alias, safe='')}"
            fingerprint = (await self._client.ask("GET", path, project=project))["target"]
        path = f"/1.0/images/{quote(fingerprint or asked.alias, safe='')}"
        info = decoded(await self._client.ask("GET", path, project=project, secret=asked.secret or None))
        if info.type != "container":
            raise Unsupported(f"The image is a {info.type}, not a container", key="source")
        if architecture and info.architecture not in ("", architecture):
            text = f'Image "{asked.name[:80]}" is for {info.architecture}, not for {architecture}'
            raise Invalid(text, key="source")
        return Found(
            info.fingerprint,
            (File("rootfs", f"/1.0/images/{info.fingerprint}/export", info.size),),
            alias=asked.alias,
            architecture=info.architecture,
            properties=only_set(info.properties),
            expires=info.expires_at or "",
            filename=info.filename,
        )

    async def download(self, found: Found, upload: Upload, through: Through) -> None:
        file, asked = found.files[0], self._asked
        project, secret = asked.project or None, asked.secret or None
        async with self._client.stream(file.path, project=project, secret=secret) as response:
            if response.content_type == "multipart/form-data":
                await add_parts(upload, aiohttp.MultipartReader.from_response(response), through)
            else:
                await upload.add(through(file.part, response.content.iter_chunked(PIECE)))


def decoded(found: Any) -> Info:
    try:
        info = msgspec.convert(found, Info)
    except msgspec.ValidationError as error:
        raise Error(f"The server's answer is no image: {error}") from None
    if not info.fingerprint.isalnum():
        raise Error("The server's answer is no image: it has no fingerprint")
    return info
