"""Asks a daemon the same small thing again and again, in a process of its own: how long does it ever take?

`python -m lxdpy.dev.bench.probe SOCKET` goes on until its stdin ends, then writes all times (ms, as JSON).
What the client of a crowd does in its own process must not be taken for a stall of the daemon.
"""

import asyncio
import contextlib
import json
import select
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.client import HTTPResponse
from pathlib import Path

from lxdpy.dev.api import Connection

PAUSE = 0.02  # seconds between an answer and the next question
PATIENCE = 60.0  # seconds for an answer


def asked(path: Path) -> list[float]:
    """Milliseconds of each GET /1.0 until stdin ends; writes a line when it has got the first answer."""
    taken = []
    with contextlib.closing(Connection(path, PATIENCE)) as connection:
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            begin = time.perf_counter()
            connection.request("GET", "/1.0")
            answer: HTTPResponse = connection.getresponse()
            answer.read()
            taken.append(1000 * (time.perf_counter() - begin))
            if len(taken) == 1:
                print(flush=True)
    return taken


@asynccontextmanager
async def probed(path: Path) -> AsyncIterator[list[float]]:
    """Asks during the block; the times are in the list after it."""
    taken: list[float] = []
    pipe = asyncio.subprocess.PIPE
    words: Sequence[str] = (sys.executable, "-m", "lxdpy.dev.bench.probe", str(path))
    child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert child.stdout
    try:
        await child.stdout.readline()
        yield taken
        output, _ = await child.communicate(b"")  # which closes its stdin
        taken += json.loads(output)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


if __name__ == "__main__":
    print(json.dumps(asked(Path(sys.argv[1]))))
