"""/1.0/instances/<name>/files and /sftp: files of running and stopped instances.

As in LXD, an existing file keeps its owner and mode when it is written again. Modes are octal here, with a
leading zero or without.
"""

import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from cluster.errors import Error, Exhausted, Forbidden, Invalid, NotFound, Unavailable
from lxdpy.host.sftp import client
from lxdpy.host.sftp.client import File, Sftp
from lxdpy.host.sftp.words import Attributes
from lxdpy.resources.instances.announce import announce
from lxdpy.resources.instances.handlers import found, owner
from lxdpy.resources.instances.model import Instance
from lxdpy.rest.patience import is_there, while_true
from lxdpy.rest.replies import JSON, OCTETS, raw, sync
from lxdpy.rest.route import Call, Routes
from lxdpy.rest.splice import local

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = Routes("/1.0/instances")

FOLDER_MODE, FILE_MODE = 0o750, 0o644  # of what is made without saying so; LXD's
LAST_ID = 2**32 - 2
MAX_LINK = 4096  # bytes of a link's target; the kernel's own limit


class Given(msgspec.Struct, frozen=True):
    """What the headers of a request say. -1: nothing."""

    type: str
    uid: int
    gid: int
    mode: int
    append: bool

    def attributes(self, mode: int) -> Attributes:
        """For a new file, of this mode unless another was given."""
        ids = (max(self.uid, 0), max(self.gid, 0)) if self.uid >= 0 or self.gid >= 0 else None
        return Attributes(ids=ids, mode=self.mode if self.mode >= 0 else mode)


def given(headers: "Mapping[str, str]") -> Given:
    """Raises Invalid, naming the header."""
    type, write = headers.get("X-LXD-type") or "file", headers.get("X-LXD-write") or "overwrite"
    if write not in ("overwrite", "append"):
        raise Invalid(f"Bad file write mode: {write}")
    if type not in ("file", "symlink", "directory"):
        raise Invalid(f"Bad file type: {type}")
    uid, gid = (_number(headers, name, 10, LAST_ID) for name in ("X-LXD-uid", "X-LXD-gid"))
    return Given(type, uid, gid, _number(headers, "X-LXD-mode", 8, 0o7777), write == "append")


def _number(headers: "Mapping[str, str]", name: str, base: int, most: int) -> int:
    text = headers.get(name, "")
    if text in ("", "-1"):
        return -1
    try:
        value = int(text.removeprefix("0o"), base)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise Invalid(f'Bad {name}: "{text}" is not a number from 0 to {most:{"o" if base == 8 else "d"}}')
    return value


def path_of(call: Call[None]) -> bytes:
    path = call.query("path")
    if not path:
        raise Invalid("Missing path argument", key="path")
    return b"/" + os.fsencode(path).lstrip(b"/")


@contextmanager
def told(verb: str, path: bytes) -> Iterator[None]:
    """What the instance's kernel refuses, as an error for the client."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as failure:
        raise refusal(failure, verb, os.fsdecode(path)) from None


def refusal(failure: OSError, verb: str, path: str) -> Error:
    """LXD's texts where it has them. What it calls 500 is the request's fault, so it is 400."""
    if failure.errno == errno.ENOENT:
        return NotFound("Not Found", path=path)
    if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Forbidden("Forbidden", path=path)
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(f"{verb} {path}: {failure.strerror}", path=path)
    if failure.errno == errno.EIO:
        return Unavailable(f"{verb} {path}: {failure.strerror}", path=path)
    return Invalid(f"{verb} {path}: {failure.strerror}", path=path)


@asynccontextmanager
async def files_of(call: Call[None], row: Instance) -> AsyncIterator[Sftp]:
    """For as long as the client is there: a file system in an instance may never answer."""
    try:
        async with while_true(lambda: is_there(call.request)), call.daemon.files.sftp(row.key) as sftp:
            yield sftp
    except TimeoutError:
        raise ConnectionResetError("the client hung up") from None


@routes.on("HEAD", "/{name}/files", entitlement="can_access_files", owner=owner)
async def head_file(call: Call[None]) -> web.Response:
    row, path = found(call), path_of(call)
    async with files_of(call, row) as sftp:
        with told("stat", path):
            known = await sftp.lstat(path)
    return web.Response(content_type=JSON, headers=headers_of(known))


@routes.on("GET", "/{name}/files", entitlement="can_access_files", owner=owner)
async def get_file(call: Call[None]) -> web.StreamResponse:
    """A file's or link's content, or the names in a directory."""
    row, path = found(call), path_of(call)
    async with files_of(call, row) as sftp:
        with told("open", path):
            known = await sftp.lstat(path)
            if known.kind == "directory":
                names = [name.decode(errors="replace") for name in await sftp.names(path)]
                reply: web.StreamResponse = sync(names)
            elif known.kind == "symlink":
                reply = shown_link(path, await sftp.read_link(path))
            else:
                async with sftp.open(path, client.READ) as file:
                    reply = await send(call, file, path, known)
    announce(call.daemon, row, "instance-file-retrieved", path=os.fsdecode(path))
    if not reply.prepared:
        reply.headers.update(headers_of(known))
    return reply


def shown_link(path: bytes, target: bytes) -> web.Response:
    """As LXD tells it: whole, so that a client need not know where the link stands."""
    whole = target if target.startswith(b"/") else posixpath.join(posixpath.dirname(path), target)
    if not target.startswith(b"/"):
        whole = posixpath.normpath(b"/" + whole.lstrip(b"/"))
    return raw(whole, headers=disposition(path))


async def send(call: Call[None], file: File, path: bytes, known: Attributes) -> web.StreamResponse:
    """What it holds now, or the range asked for. Files that the kernel makes up have no size: to the end."""
    headers = headers_of(known) | disposition(path) | {"Accept-Ranges": "bytes", "Content-Type": OCTETS}
    if known.times:
        headers["Last-Modified"] = formatdate(known.times[1], usegmt=True)
    size = known.size or 0
    if not size:
        first = await file.read(0)
        return await _stream(
            call, _to_the_end(file, first), headers if first else headers | {"Content-Length": "0"}
        )
    start, end, status = wanted_range(call, size)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return await _stream(call, file.stream(start, end), headers, status)


async def _to_the_end(file: File, data: memoryview) -> AsyncIterator[memoryview]:
    offset = 0
    while data:
        yield data
        offset += len(data)
        data = await file.read(offset)


def wanted_range(call: Call[None], size: int) -> tuple[int, int, int]:
    """First byte, the one after the last, and the answer's status. Raises Invalid."""
    if "Range" not in call.request.headers:
        return 0, size, 200
    try:
        asked = call.request.http_range
    except ValueError:
        raise Invalid(f'Bad Range: "{call.request.headers["Range"]}"') from None
    start, end, _ = asked.indices(size)
    if start >= end:
        raise Invalid(f'Bad Range: "{call.request.headers["Range"]}" is not in a file of {size} bytes')
    return start, end, 206


async def _stream(
    call: Call[None], parts: AsyncIterator[memoryview], headers: dict[str, str], status: int = 200
) -> web.StreamResponse:
    reply = web.StreamResponse(status=status, headers=headers)
    await reply.prepare(call.request)
    missing = int(headers.get("Content-Length", 0))
    async for data in parts:
        missing -= len(data)
        await reply.write(data)
    if missing > 0:
        raise Unavailable("The file became shorter while it was read")
    await reply.write_eof()
    return reply


def headers_of(known: Attributes) -> dict[str, str]:
    uid, gid = known.ids or (0, 0)
    changed = datetime.fromtimestamp(known.times[1] if known.times else 0, UTC)
    return {
        "X-LXD-uid": str(uid),
        "X-LXD-gid": str(gid),
        "X-LXD-mode": f"{stat.S_IMODE(known.mode or 0) & 0o777:04o}",
        "X-LXD-modified": f"{changed:%Y-%m-%d %H:%M:%S} +0000 UTC",
        "X-LXD-type": known.kind,
    }


def disposition(path: bytes) -> dict[str, str]:
    name = posixpath.basename(path).decode(errors="replace")
    return {"Content-Disposition": f"inline;filename={''.join(c for c in name if c.isprintable())}"}


@routes.on("POST", "/{name}/files", entitlement="can_access_files", owner=owner)
async def push_file(call: Call[None]) -> web.Response:
    row, path, wanted = found(call), path_of(call), given(call.request.headers)
    make = {"file": push, "symlink": make_link, "directory": make_folder}[wanted.type]
    async with files_of(call, row) as sftp:
        await make(call, sftp, path, wanted)
    announce(call.daemon, row, "instance-file-pushed", path=os.fsdecode(path))
    return sync()


async def push(call: Call[None], sftp: Sftp, path: bytes, wanted: Given) -> None:
    """The body, as it comes. A new file of which not all came is removed."""
    with told("open", path):
        try:
            await sftp.stat(path)
            new = False
        except FileNotFoundError:
            new = not wanted.append
        how = client.APPEND if wanted.append else client.CREATE | client.TRUNCATE
        # Until all of it is there, a new file is nobody's but root's.
        async with sftp.open(path, client.WRITE | how, 0o600) as file:
            try:
                await file.write(call.request.content.iter_any())
                if new:
                    await file.change(wanted.attributes(FILE_MODE))
            except BaseException:
                if new and sftp.usable:
                    await sftp.remove(path)
                raise


async def make_link(call: Call[None], sftp: Sftp, path: bytes, wanted: Given) -> None:
    """Fine if it is there and leads to the same."""
    target = await call.read(MAX_LINK)
    with told(f"symlink {os.fsdecode(target)}", path):
        try:
            if await sftp.read_link(path) == target:
                return
        except OSError as other:
            if other.errno not in (errno.ENOENT, errno.EINVAL):
                raise
        await sftp.link(target, path)


async def make_folder(call: Call[None], sftp: Sftp, path: bytes, wanted: Given) -> None:
    """Fine if it is there."""
    with told("mkdir", path):
        try:
            await sftp.stat(path)
        except FileNotFoundError:
            await sftp.make_folder(path, 0o700)
            await sftp.change(path, wanted.attributes(FOLDER_MODE))


@routes.on("DELETE", "/{name}/files", entitlement="can_access_files", owner=owner)
async def delete_file(call: Call[None]) -> web.Response:
    row, path = found(call), path_of(call)
    async with files_of(call, row) as sftp:
        with told("remove", path):
            await sftp.remove(path)
    announce(call.daemon, row, "instance-file-deleted", path=os.fsdecode(path))
    return sync()


@routes.on("GET", "/{name}/sftp", entitlement="can_access_files", owner=owner)
async def sftp_session(call: Call[None]) -> web.StreamResponse:
    """The connection becomes one of SFTP, to a server of its own."""
    if call.request.headers.get("Upgrade", "").lower() != "sftp":
        raise Invalid("Missing or invalid upgrade header")
    async with call.daemon.files.server(found(call).key) as server:
        return await local(call.request, server.take(), "sftp")
