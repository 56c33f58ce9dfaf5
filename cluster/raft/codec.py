"""msgpack in place of pickle, everywhere in PySyncObj; and the other module-level hooks it needs."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import msgpack
import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.syncobj
import pysyncobj.tcp_connection
from pysyncobj.node import Node as LibraryNode
from pysyncobj.version import VERSION

from cluster.raft import snapshot

AUDITED = "0.3.17"  # every repair in this package was derived from reading this version
REGULAR = b"\x00"  # first byte of a log entry: what kind it is
NO_OP = b"\x01"
MEMBERSHIP = b"\x02"

_PEER = 1  # msgpack extension type


class Peer(LibraryNode):  # type: ignore[misc]  # the library has no types
    """A member as the library sees it: an id, never an address."""

    def __init__(self, id: str, **_: Any) -> None:
        super().__init__(id)


def dumps(value: Any, protocol: int | None = None) -> bytes:
    """`protocol` is pickle's, and ignored."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, default=_pack_peer)
    return packed


def loads(data: bytes) -> Any:
    """Arrays become tuples: the library tells commands with arguments by `isinstance(command, tuple)`."""
    return msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=False, ext_hook=_unpack_peer)


def membership(command: bytes) -> tuple[str, str] | None:
    """("add" or "rem", member id) of a log entry that changes the voters."""
    if command[:1] != MEMBERSHIP:
        return None
    verb, member, *_ = loads(command[1:])
    return verb, member


def argument(command: bytes) -> bytes | None:
    """What `Core.entry` was called with, of a log entry that calls it: (number of the method, arguments)."""
    if command[:1] != REGULAR:
        return None
    _, (blob,) = loads(command[1:])
    return bytes(blob)


def install() -> None:
    """Must run before the library is used; may run again. Raises RuntimeError for another version."""
    if VERSION != AUDITED:
        raise RuntimeError(f"pysyncobj {VERSION} has not been audited, {AUDITED} has")
    pysyncobj.syncobj.pickle = SimpleNamespace(dumps=dumps, loads=loads, to_bytes=_to_bytes)
    pysyncobj.syncobj.createJournal = _given_journal
    # The pipe leaks two descriptors per object and fails at 65,536 queued commands; passes are driven by us.
    pysyncobj.syncobj.PIPE_NOTIFIER_ENABLED = False
    pysyncobj.serializer.atomicReplace = _replace_snapshot
    pysyncobj.serializer.open = _open
    refuse = SimpleNamespace(dumps=_refuse, loads=_refuse, dump=_refuse, load=_refuse, to_bytes=_to_bytes)
    pysyncobj.serializer.pickle = refuse
    pysyncobj.tcp_connection.pickle = refuse
    pysyncobj.journal.loads = pysyncobj.journal.dumps = _refuse


def _pack_peer(value: Any) -> Any:
    if isinstance(value, LibraryNode):
        return msgpack.ExtType(_PEER, value.id.encode())
    raise TypeError(f"cannot be in the log: {value!r}")


def _unpack_peer(code: int, data: bytes) -> Peer:
    if code != _PEER:
        raise ValueError(f"unknown extension type {code}")
    return Peer(data.decode())


def _to_bytes(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode()


def _given_journal(journal: Any) -> Any:
    return journal


def _replace_snapshot(source: str, target: str) -> None:
    """The library renames a received snapshot without syncing or checking it."""
    snapshot.replace_checked(Path(source), Path(target))


class _LeftOpen(io.FileIO):
    """The library leaves snapshots it transfers to be closed when nothing refers to them any more."""

    def _dealloc_warn(self, _: object) -> None:
        pass


def _open(path: str, mode: str) -> io.BufferedReader | io.BufferedWriter:
    raw = _LeftOpen(path, mode)
    return io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("pickle is never used")
