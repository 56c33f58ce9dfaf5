"""Network namespaces of containers kept until what was lent to them is taken back. Blocking.

Of interfaces that come while a container runs LXC does not know. When the namespace ends the kernel moves
them to the machine's first one, under any name, or removes those that are not hardware. So the namespace is
mounted at a file: that outlives the container, and the daemon. Beside it is noted what was lent, as the
daemon may die before the cluster knows.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lxdpy.host import mounts
from lxdpy.host.storage.layout import make_folder

MS_BIND = 0x1000  # linux/mount.h


def pin(file: Path, init: int, notes: Mapping[str, str]) -> None:
    """Keep the network namespace of process `init`. What the file kept before it keeps no more."""
    unpin(file)
    make_folder(file.parent, 0o711)
    _notes(file).write_bytes(msgspec.json.encode(notes))
    file.touch(mode=0o600)
    mounts.mount(f"/proc/{init}/ns/net", str(file), "", MS_BIND)


def pinned(file: Path) -> dict[str, str]:
    """What was noted; empty if nothing is kept."""
    try:
        return msgspec.json.decode(_notes(file).read_bytes(), type=dict[str, str]) if file.exists() else {}
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def unpin(file: Path) -> None:
    """Idempotent."""
    mounts.unmount(str(file), lazy=True)
    file.unlink(missing_ok=True)
    _notes(file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()  # the last one's


def _notes(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")
