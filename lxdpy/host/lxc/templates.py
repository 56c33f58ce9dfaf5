"""Templates, rendered in a child of the helper (`rendering`).

What goes in and comes out is in files of memory: longer than a message of the helper may be.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import Invalid
from lxdpy.host.lxc.client import HelperClient, HelperFailed

WITHIN = 20.0  # seconds, on a busy host

Job = Mapping[str, Any]
"""`name` for messages, `text` of the template, `context`: the names it may use."""


async def rendered(helper: HelperClient, jobs: Sequence[Job]) -> list[str]:
    """Raises Invalid, naming the template that is wrong."""
    asked, said = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("templates", "rendered"))
    try:
        _fill(asked, json.dumps(list(jobs)).encode())
        try:
            await helper.call("render", [asked, said], timeout=WITHIN)
        except HelperFailed:
            names = ", ".join(job["name"] for job in jobs)
            raise Invalid(f"Templates that fail, or take too much time or memory: {names}") from None
        answer = json.loads(os.pread(said, os.fstat(said).st_size, 0))
    finally:
        os.close(asked)
        os.close(said)
    if "error" in answer:
        raise Invalid(answer["error"])
    texts: list[str] = answer["texts"]
    return texts


def _fill(file: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(file, rest) :]
