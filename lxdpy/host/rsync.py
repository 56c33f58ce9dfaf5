"""One end of an rsync whose other end is a stranger's: LXD's way to send the files of a volume.

Who sends is rsync's client and who receives its server, with the words that LXD gives both, as what they say
to each other depends on them. Neither end trusts the other. So rsync runs in a sandbox (bubblewrap) in which
there is the one folder, no network and no right that it does not need: whatever it is made to do, links and
all, stays within that folder.
"""

import asyncio
import contextlib
import os
import shlex
import socket
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import msgspec

from cluster.errors import Unavailable, Unsupported
from lxdpy.host.run import ENVIRONMENT, TAIL, CommandFailed, end

PIECE = 1 << 16  # bytes of a message
BRIDGE = Path(__file__).with_name("rsync_bridge.py")
LAST_WORDS = 10.0  # seconds for the other end to finish once ours has
RIGHTS = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
PARTS = ("/metadata.yaml", "/templates/", "/rootfs/")  # of an instance's folder, what is its own


class Stream(Protocol):
    """What carries one rsync, or several after each other: each way ends with a mark."""

    async def read(self) -> bytes:
        """Some bytes; b"" is the mark. Raises Unavailable when the other end is lost."""
        ...

    async def write(self, data: bytes) -> None:
        """Raises Unavailable."""

    async def end(self) -> None:
        """Send the mark. Raises Unavailable."""


class Features(msgspec.Struct, frozen=True):
    """What both ends have agreed on: each has to be told the same."""

    xattrs: bool = False
    delete: bool = False
    compress: bool = False
    bidirectional: bool = False  # LXD's word for: this was agreed on
    whole: bool = False  # hard links and ACLs as well, which LXD leaves behind


async def send(
    folder: Path, stream: Stream, features: Features, *, limit: int = 0, parts: Sequence[str] = PARTS
) -> None:
    """The folder, or only those `parts` of it; `limit`: bytes a second, 0 for none.

    Raises CommandFailed, and Unavailable when the other end is lost.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bridge = f"/usr/bin/python3 -I -S /bridge {theirs.fileno()}"
        rate = (f"--bwlimit={max(1, limit // 1024)}",) if limit else ()
        chosen = (*(f"--include={part}" for part in parts), "--exclude=/*") if parts else ()
        words = (
            *_sandbox("--ro-bind", folder, "/source", "--ro-bind", BRIDGE, "/bridge"),
            "rsync", "--archive", "--devices", "--numeric-ids", "--partial", "--sparse", *rate,
            *_words(features), *chosen, f"--rsh={bridge}", "/source/", "peer:/",
        )  # fmt: skip
        await _joined(words, ours, theirs, stream, server=False)


async def receive(folder: Path, stream: Stream, features: Features, base: Path | None = None) -> None:
    """Into the folder; what is the same in `base` is taken from there. Raises as `send`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        binds = ("--ro-bind", base, "/base") if base else ()
        words = (
            *_sandbox("--bind", folder, "/target", *binds),
            "rsync", "--server", "-vlogDtpre.iLsfx", "--numeric-ids", "--devices", "--partial", "--sparse",
            "--modify-window=-1",  # to the nanosecond, else two changes within a second are none
            *(("--copy-dest=/base",) if base else ()), *_words(features), ".", "/target",
        )  # fmt: skip
        await _joined(words, ours, theirs, stream, server=True)


def _words(features: Features) -> tuple[str, ...]:
    """Of both ends alike."""
    words = {
        "xattrs": ("--xattrs",),
        "delete": ("--delete",),
        "compress": ("--compress", "--compress-level=2"),
        "whole": ("--hard-links", "--acls"),
    }
    return tuple(word for name, of_it in words.items() if getattr(features, name) for word in of_it)


def _sandbox(*binds: str | Path) -> tuple[str | Path, ...]:
    rights = (word for right in RIGHTS for word in ("--cap-add", f"CAP_{right}"))
    return (
        "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--new-session",
        "--die-with-parent", "--cap-drop", "ALL", *rights,
        "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64", "--dev", "/dev", *binds, "--",
    )  # fmt: skip


async def _joined(
    words: Sequence[str | Path], ours: socket.socket, theirs: socket.socket, stream: Stream, *, server: bool
) -> None:
    """Run it, with what it says and hears on `theirs` joined with the stream. It is killed on cancel."""
    argv = [os.fspath(word) for word in words]
    with tempfile.TemporaryFile() as errors:
        child = await _started(argv, theirs, errors, server=server)
        reader, writer = await asyncio.open_connection(sock=ours, limit=PIECE)
        try:
            async with asyncio.TaskGroup() as both:
                outward = both.create_task(_outward(reader, writer, stream))
                inward = both.create_task(_inward(stream, writer))
                await child.wait()
                await asyncio.wait([inward, outward], timeout=LAST_WORDS)
                late = not (inward.done() and outward.done())
                inward.cancel()
                outward.cancel()
        finally:
            writer.close()
            await end(child)
        lost = (not inward.cancelled() and inward.result()) or (not outward.cancelled() and outward.result())
        if lost:
            raise lost
        if child.returncode:
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip()[-TAIL:]
            raise CommandFailed(f"rsync failed: {tail}", argv=shlex.join(argv), status=str(child.returncode))
        if late:
            raise Unavailable("The other server does not end its rsync")


async def _started(
    argv: Sequence[str], theirs: socket.socket, errors: IO[bytes], *, server: bool
) -> asyncio.subprocess.Process:
    """Afterwards only it has that end. Raises Unsupported."""
    ends = theirs.fileno() if server else DEVNULL
    try:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=ends, stdout=ends, stderr=errors, env=dict(ENVIRONMENT),
            pass_fds=() if server else (theirs.fileno(),),
        )  # fmt: skip
    except FileNotFoundError:
        raise Unsupported(f"Program not installed: {argv[0]}", program=argv[0]) from None
    finally:
        theirs.close()


async def _outward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream
) -> Unavailable | None:
    """Returns why the other end is lost; then rsync is cut off."""
    try:
        while data := await reader.read(PIECE):
            await stream.write(data)
        await stream.end()
    except Unavailable as lost:
        writer.close()
        return lost
    except ConnectionError:
        await stream.end()  # it has ended without having read all
    return None


async def _inward(stream: Stream, writer: asyncio.StreamWriter) -> Unavailable | None:
    try:
        while data := await stream.read():
            if not writer.is_closing():  # else rsync has ended: what comes until the mark is for nobody
                with contextlib.suppress(ConnectionError):
                    writer.write(data)
                    await writer.drain()
    except Unavailable as lost:
        writer.close()
        return lost
    with contextlib.suppress(OSError):
        writer.write_eof()
    return None
