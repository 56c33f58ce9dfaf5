"""LXD's envelopes. Fields in the order in which Go's encoder writes them, and its newline at the end.

Lists of thousands are cheap when their rows are `msgspec.Raw`: encoded once per version of the row, then
copied.
"""

from pathlib import Path
from typing import Protocol

import msgspec
from aiohttp import web

from cluster.errors import Error
from lxdpy.rest.errors import status_of

encode = msgspec.json.Encoder(order=None).encode

JSON = "application/json"
OCTETS = "application/octet-stream"
CREATED = 100  # LXD's code of an operation that was created

_SYNC = (
    b'{"type":"sync","status":"Success","status_code":200,"operation":"",'
    b'"error_code":0,"error":"","metadata":'
)
_END = b"}\n"


class Shown(Protocol):
    """An operation, or the wire form of one that another member is about to start."""

    @property
    def id(self) -> str: ...

    def shown(self) -> object:
        """What clients see of it."""
        ...


def sync(metadata: object = None, *, etag: str | None = None, location: str | None = None) -> web.Response:
    """200; with `location` 201. Metadata that is left out is `{}`, or null of what was created, as in LXD."""
    empty = b"null" if location else b"{}"
    body = empty if metadata is None else encode(metadata)
    reply = web.Response(body=_SYNC + body + _END, status=201 if location else 200, content_type=JSON)
    if etag is not None:
        reply.headers["ETag"] = f'"{etag}"'
    if location:
        reply.headers["Location"] = location
    return reply


def asynchronous(operation: Shown, *, project: str = "") -> web.Response:
    """202. `project` is given when another member runs the operation: LXD then names it in the URL.

    Here in the header only: Ansible's modules make a URL to wait at by adding to the one in the body.
    """
    url = f"/1.0/operations/{operation.id}"
    body = (
        b'{"type":"async","status":"Operation created","status_code":100,"operation":'
        + encode(url)
        + b',"error_code":0,"error":"","metadata":'
        + encode(operation.shown())
        + _END
    )
    return web.Response(
        body=body,
        status=202,
        content_type=JSON,
        headers={"Location": f"{url}?project={project}" if project else url},
    )


def error(status: int, message: str) -> web.Response:
    body = (
        b'{"type":"error","status":"","status_code":0,"operation":"","error_code":%d,"error":' % status
        + encode(message)
        + b',"metadata":null'
        + _END
    )
    headers = {"X-Content-Type-Options": "nosniff"}
    return web.Response(body=body, status=status, content_type=JSON, headers=headers)


def failure(reason: Error) -> web.Response:
    return error(status_of(reason), reason.message)


def file(
    path: Path, *, filename: str | None = None, headers: dict[str, str] | None = None
) -> web.FileResponse:
    """A file as it is, with ranges; `filename` is what clients save it as, by default its own name."""
    name = path.name if filename is None else filename
    shown = {"Content-Disposition": f"inline;filename={name}", "Content-Type": OCTETS, **(headers or {})}
    return web.FileResponse(path, headers=shown, chunk_size=1 << 20)


def raw(body: bytes, *, content_type: str = OCTETS, headers: dict[str, str] | None = None) -> web.Response:
    """Bytes without an envelope: an instance's file, a log, metrics."""
    return web.Response(body=body, content_type=content_type, headers=headers)
