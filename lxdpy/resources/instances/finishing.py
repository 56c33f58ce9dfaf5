"""The last of a device: what is done by the container's own programs, as its root and in its namespaces.

So nothing in the container can lead us out of it. At a start it is done before its init runs.
"""

import asyncio
import os
import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cluster.errors import Unavailable
from lxdpy.host.devices.driver import Attachment, Finish
from lxdpy.host.lxc.client import ExecRequest
from lxdpy.resources.instances.model import Instance

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

WITHIN = 60.0  # seconds; ldconfig takes 0.1 to 3
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOADER = "/etc/ld.so.conf.d/00-lxdpy-cdi.conf"
DONE = "/dev/.lxdpy-finished"  # it was all done before the init; gone once we have seen it
TAKEN = f"[ -e {DONE} ] && rm {DONE}"
LINK = 'mkdir -p "$(dirname "$2")" && ln -sfn "$1" "$2"'
MODE = '[ ! -e "$2" ] || chmod "$1" "$2"'
CACHE = (  # without a loader that has a cache, as in Alpine, the folders must be those it looks into anyway
    'command -v ldconfig >/dev/null || exit 0; file="$1"; shift; mkdir -p "${file%/*}"; touch "$file"; '
    'for one; do grep -qxF "$one" "$file" || echo "$one" >>"$file"; done; ldconfig'
)


def first_of(parts: Iterable[Attachment]) -> str:
    """A script that does it all, for before the container's init; "" if there is nothing.

    What fails there is done again by `finish`, which can say why.
    """
    words = [shlex.join(("/bin/sh", "-c", script, "sh", *words)) for _, script, words in _all(parts)]
    return f"PATH={PATH}\nexport PATH\n{' && '.join(words)} && : >{DONE}\nexit 0\n" if words else ""


async def finish(daemon: "Daemon", row: Instance, parts: Iterable[Attachment], *, cold: bool = False) -> None:
    """Idempotent. `cold`: it may have been done before the init. Raises Unavailable naming what failed."""
    wanted = [*_all(parts)]
    if wanted and cold and not await _run(daemon, row, "looking at what is done", ("/bin/sh", "-c", TAKEN)):
        return
    for what, script, words in wanted:
        argv = ("/bin/sh", "-c", script, "sh", *words)
        if status := await _run(daemon, row, what, argv):
            raise Unavailable(f"{what}: cannot be done in the instance: status {status} of {argv[0]}")


def _all(parts: Iterable[Attachment]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for part in parts:
        yield from steps(part.finish) if part.finish else ()


def steps(wanted: Finish) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What it is called, and a script with its arguments."""
    for target, path in wanted.links:
        yield f"link {path}", LINK, (target, path)
    for mode, path in wanted.modes:
        yield f"mode of {path}", MODE, (mode, path)
    if wanted.libraries:
        yield "cache of libraries", CACHE, (LOADER, *wanted.libraries)


async def _run(daemon: "Daemon", row: Instance, what: str, argv: tuple[str, ...]) -> int:
    """Its status."""
    request = ExecRequest(argv, {"PATH": PATH, "LANG": "C.UTF-8"})
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        session = await daemon.runtime.exec(row.volume, request, [nothing, nothing, nothing])
    finally:
        os.close(nothing)
    try:
        async with asyncio.timeout(WITHIN):
            return await session.wait()
    except TimeoutError:
        session.signal(9)
        raise Unavailable(f"{what}: not done in the instance within {WITHIN:g} s") from None
