"""What all devices that are device files have in common: options, and the notes of what was given."""

import os
import stat
from collections.abc import Iterable
from typing import Literal

import msgspec

from cluster.errors import Conflict, Invalid
from lxdpy.config.key import Key
from lxdpy.config.types import absolute_path, boolean, integer, matching
from lxdpy.host.devices.driver import Attachment, Node, Options, Seat

Kind = Literal["c", "b"]
MODE = "0660"
NODES = "nodes"  # volatile key: the files that were given
WORDS = {"c": "character", "b": "block"}

usb_id = matching(r"[0-9A-Fa-f]{4}", "an id of four hex digits")

OWNER = (
    Key(
        name="uid", doc="Owner of the device file in the instance.", parse=integer(0, 2**32 - 2), default="0"
    ),
    Key(
        name="gid", doc="Group of the device file in the instance.", parse=integer(0, 2**32 - 2), default="0"
    ),
    Key(
        name="mode",
        doc="Mode of the device file in the instance, octal.",
        parse=matching(r"0?[0-7]{3}", "a mode of three octal digits"),
        default=MODE,
    ),
)


def file_keys(type_: str) -> tuple[Key, ...]:
    """Options of the types that give one device file, named by its path or numbers."""
    return (
        Key(name="type", doc=f"`{type_}`."),
        Key(name="source", doc="Path on the host; unset, that in the instance.", parse=absolute_path),
        Key(name="path", doc="Path in the instance; unset, that on the host.", parse=absolute_path),
        Key(name="major", doc="Major number; unset, that of the host's file.", parse=integer(0, 4095)),
        Key(name="minor", doc="Minor number; unset, that of the host's file.", parse=integer(0, 2**20 - 1)),
        Key(
            name="required",
            doc="Whether the instance does not start without it; if not, it comes and goes with the host's.",
            parse=boolean,
            default="true",
        ),
        *OWNER,
    )


class DeviceMissing(Conflict):
    """A device that the instance cannot do without is not on this host."""


def check_file(options: Options) -> None:
    """Raises Invalid for options of a device file that do not fit together."""
    type_ = options.get("type", "")
    if not options.get("source") and not options.get("path"):
        raise Invalid(f'{type_} device: "source" or "path" is needed', key="source")
    for one in ("source", "path"):
        if ".." in options.get(one, "").split("/"):
            raise Invalid(f'{type_} device: "{one}" must not climb with "..": {options[one]}', key=one)
    if bool(options.get("major")) != bool(options.get("minor")):
        missing = "minor" if options.get("major") else "major"
        raise Invalid(f'{type_} device: "major" and "minor" go together; set "{missing}" too', key=missing)


def source_of(options: Options) -> str:
    """Path on the host; only where the numbers are not given it must be there."""
    return options.get("source") or options["path"]


def node_of(options: Options, kind: Kind) -> Node | None:
    """The file as the options say, None if the host has none. Raises Invalid if it is of another kind."""
    path = options.get("path") or options["source"]
    if options.get("major"):
        return owned(options, path, kind, int(options["major"]), int(options["minor"]))
    source = source_of(options)
    try:
        found = os.stat(source)
    except OSError:
        return None
    if not (stat.S_ISCHR(found.st_mode) if kind == "c" else stat.S_ISBLK(found.st_mode)):
        raise Invalid(f"Not a {WORDS[kind]} device: {source}", key="source", value=source)
    return owned(options, path, kind, os.major(found.st_rdev), os.minor(found.st_rdev), source)


def owned(options: Options, path: str, kind: Kind, major: int, minor: int, source: str = "") -> Node:
    """A file that belongs to whom the options say."""
    return Node(
        path=path,
        kind=kind,
        major=major,
        minor=minor,
        source=source,
        uid=int(options.get("uid") or 0),
        gid=int(options.get("gid") or 0),
        mode=int(options.get("mode") or MODE, 8),
    )


def attachment(nodes: Iterable[Node]) -> Attachment:
    """The files, and the note by which `given_before` knows them."""
    given = tuple(nodes)
    noted = [(node.path, node.kind, node.major, node.minor) for node in given]
    return Attachment(nodes=given, volatile={NODES: msgspec.json.encode(noted).decode() if noted else ""})


def given_before(seat: Seat) -> Attachment:
    """The files that were given, though the host may have them no more."""
    noted = msgspec.json.decode(seat.volatile.get(NODES) or "[]", type=list[tuple[str, Kind, int, int]])
    return Attachment(
        nodes=tuple(
            Node(path=path, kind=kind, major=major, minor=minor) for path, kind, major, minor in noted
        )
    )
