"""Image files: brought to the member that needs them, dropped where the image is gone."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster.errors import Error, Invalid, NotFound, Unavailable, Uncertain
from cluster.membership.model import name_of
from lxdpy.host.progress import share
from lxdpy.resources.images.commands import HoldImage
from lxdpy.resources.images.model import IMAGES, Image

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon
    from lxdpy.resources.operations.operation import Operation

log = logging.getLogger(__name__)

SILENCE = 60.0  # seconds until a server that sends nothing more is given up


@asynccontextmanager
async def retained(daemon: "Daemon", fingerprint: str) -> AsyncIterator[None]:
    """Within, what this member has of the image stays, though no project knows it: yet, or any more."""
    try:
        with daemon.using(files_of(fingerprint)):
            yield
    except Uncertain:
        raise  # the cluster may know it by now
    except BaseException:
        await drop(daemon, fingerprint)
        raise
    await drop(daemon, fingerprint)


def files_of(fingerprint: str) -> str:
    """What is in use, for `Daemon.using`."""
    return f"image {fingerprint}"


async def ensure_here(
    daemon: "Daemon", project: str, fingerprint: str, operation: "Operation | None" = None
) -> None:
    """Have the image's files on this member, from a peer if need be. Raises NotFound, Unavailable."""
    async with daemon.lock(f"image {fingerprint}"):
        if daemon.images.has(fingerprint):
            return
        rows = [row for row in daemon.state.rows(IMAGES).values() if row.fingerprint == fingerprint]
        if not rows:
            raise NotFound("Image not found", fingerprint=fingerprint)
        await from_peers(daemon, rows[0], operation)
        for row in rows:
            with contextlib.suppress(NotFound):  # of those that were deleted meanwhile
                await daemon.store.propose(HoldImage(row.key, daemon.member_id))


async def from_peers(daemon: "Daemon", row: Image, operation: "Operation | None") -> None:
    """Under the image's lock. Raises Unavailable."""
    failures = []
    for member in sorted(row.members, key=lambda m: not daemon.beat.online(m)):
        whence = f"from member {name_of(daemon.state, member)}"
        try:
            async with daemon.images.upload() as upload:
                for part in ("metadata", "rootfs") if row.split else ("metadata",):
                    path = f"/internal/1.0/images/{row.fingerprint}/{part}"
                    chunks = daemon.forwarder.download(member, path)
                    if operation is not None:
                        chunks = told(chunks, row.size, whence, operation)
                    await upload.add(chunks)
                await upload.finish(row.fingerprint)
        except Error as failure:
            failures.append(failure.message)
        else:
            return
    reasons = "; ".join(failures) or "no member has them"
    raise Unavailable(f"The files of image {row.fingerprint[:12]} cannot be had: {reasons}")


async def told(
    chunks: AsyncIterator[bytes], size: int, whence: str, operation: "Operation"
) -> AsyncIterator[bytes]:
    """The same, with how far it is as the operation's progress."""
    done, began = 0, time.monotonic()
    async for chunk in chunks:
        done += len(chunk)
        operation.progress(download_progress=f"{whence}: {share(done, size, time.monotonic() - began)}")
        yield chunk


async def bounded(chunks: AsyncIterator[bytes], size: int, server: str) -> AsyncIterator[bytes]:
    """The same, if it is no more than so many bytes (0: nobody said) and keeps coming.

    Raises Invalid, Unavailable.
    """
    done, end = 0, False
    while not end:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Unavailable(f"{server} sent nothing for {SILENCE:g} s, at {done} of {size} bytes") from None
        end, done = chunk is None, done + len(chunk or b"")
        if 0 < size < done:
            raise Invalid(f"{server} sends more than the {size} bytes it had told of")
        if chunk is not None:
            yield chunk


async def drop(daemon: "Daemon", fingerprint: str) -> None:
    """Remove what this member has of an image that no project knows any more. Idempotent.

    While it is in use it stays: whoever uses it does this in the end.
    """
    if is_known(daemon, fingerprint):
        return
    async with daemon.lock(f"image {fingerprint}"):  # who has it brought here has told of it by then
        if is_known(daemon, fingerprint) or daemon.in_use[files_of(fingerprint)]:
            return
        daemon.images.remove(fingerprint)
        for pool in daemon.pools.opened():
            await pool.delete_image(fingerprint)


def is_known(daemon: "Daemon", fingerprint: str) -> bool:
    return any(row.fingerprint == fingerprint for row in daemon.state.rows(IMAGES).values())
