"""What a running container was given: config and devices as of its start, and as it followed since.

Profiles change while it runs, and daemons die in the middle of a change. What has to be changed then, and
taken down in the end, is what the container *has*, whatever the state says by now. So that is kept in a file
beside its run folder, from before its first device is started until the last one is stopped. What is saved is
added to it as a line of its own, and the last whole line counts: a start saves three times, and each new file
is dear, more so where others are created and removed all the time.

A second file marks an instance that is being deleted, so that a crash does not leave a row without a disk.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Config, Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Expanded = tuple[Config, Devices]
FREE = ("volatile.", "user.", "image.")  # keys that change nothing of the container itself
LONGEST = 1 << 16  # bytes of a file before it is made anew, of its last line
FIXED = "security.privileged"  # decides the ids of all that the container has, until it has stopped


class Given(msgspec.Struct, frozen=True):
    """Both expanded. `init` is the pid of its first process: another one means that it has rebooted.

    `notes` are those of its start, of which a crash may have kept the cluster from being told. With `fenced`
    it is about to be ended as its member is cut off, and to be started again when that is over.
    """

    at_start: Expanded
    now: Expanded
    init: int = 0
    notes: Config = {}
    fenced: bool = False


def has(row: Instance, given: Given) -> Expanded:
    """What the container has, with the notes that were made since."""
    config, devices = given.now
    kept = {key: value for key, value in config.items() if not key.startswith("volatile.")}
    return {**kept, **notes_of(row)}, devices


def notes_of(row: Instance) -> Config:
    return {key: value for key, value in row.config.items() if key.startswith("volatile.")}


def as_running(given: Given, wanted: Expanded) -> Expanded:
    """The wanted config as far as a running container can have it at all."""
    config = {key: value for key, value in wanted[0].items() if key != FIXED}
    if FIXED in given.now[0]:
        config[FIXED] = given.now[0][FIXED]
    return config, wanted[1]


def is_outdated(given: Given, wanted: Expanded) -> bool:
    """Whether a fresh start would make another container than LXC's own restart does."""
    return given.at_start[1] != wanted[1] or _own(given.at_start[0]) != _own(wanted[0])


def _own(config: Config) -> Config:
    return {key: value for key, value in config.items() if not key.startswith(FREE)}


async def load(daemon: "Daemon", row: Instance) -> Given | None:
    """None when it does not run, or the file is damaged."""
    return await asyncio.to_thread(_load, _path(daemon, row))


async def save(daemon: "Daemon", row: Instance, given: Given) -> None:
    await asyncio.to_thread(_append, _path(daemon, row), msgspec.json.encode(given))


async def drop(daemon: "Daemon", row: Instance) -> None:
    await asyncio.to_thread(_path(daemon, row).unlink, missing_ok=True)


async def volumes(daemon: "Daemon") -> set[str]:
    """Names of the volumes of which there are files here."""
    folder = daemon.root / "run"
    return await asyncio.to_thread(
        lambda: {path.stem for path in folder.iterdir() if path.suffix in (".json", ".deleted")}
    )


async def mark_deleted(daemon: "Daemon", row: Instance) -> None:
    """From here on a crash does not keep it from being deleted."""
    await asyncio.to_thread(_write, _mark(daemon, row), row.uuid.encode())


async def unmark(daemon: "Daemon", row: Instance) -> None:
    await asyncio.to_thread(_mark(daemon, row).unlink, missing_ok=True)


async def is_marked(daemon: "Daemon", row: Instance) -> bool:
    """Whether it was to be deleted when the daemon before us died."""
    return await asyncio.to_thread(_read, _mark(daemon, row)) == row.uuid.encode()


def _path(daemon: "Daemon", row: Instance) -> Path:
    return daemon.root / "run" / f"{row.volume}.json"  # names of instances have no dots


def _mark(daemon: "Daemon", row: Instance) -> Path:
    return daemon.root / "run" / f"{row.volume}.deleted"


def _load(path: Path) -> Given | None:
    for line in reversed(_read(path).splitlines()):
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(line, type=Given)
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _append(path: Path, line: bytes) -> None:
    """Whole or not at all: it begins anew, whatever of a line there may be."""
    with path.open("ab") as file:
        if file.tell() + len(line) < LONGEST:
            file.write(b"\n" + line)
            return
    _write(path, line)


def _write(path: Path, text: bytes) -> None:
    """Whole or not at all. Not synced: after a power cut no container runs."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(text)
    new.replace(path)
