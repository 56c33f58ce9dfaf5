"""The kinds of failure, for the whole project.

Raise the most specific kind; the message is for users, the facts are for programs. A kind travels in log
entries' outcomes and between members as `ErrorInfo`; `lxdpy.rest.errors` maps it to LXD's status codes and
back.
"""

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as data: what crosses a thread, the log or the wire."""

    kind: str
    message: str
    facts: dict[str, str] = {}


class Error(Exception):
    """Base of all deliberate errors; the message is for the user, without a trailing stop."""

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, **facts: str) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def info(self) -> ErrorInfo:
        return ErrorInfo(self.kind, self.message, self.facts)


class Invalid(Error):
    """The request can never succeed as written."""

    kind = "invalid"


class Forbidden(Error):
    """The caller may not do this, whoever else may."""

    kind = "forbidden"


class NotFound(Error):
    kind = "not-found"


class AlreadyExists(Error):
    kind = "already-exists"


class Conflict(Error):
    """The request does not fit the state as it is now."""

    kind = "conflict"


class Stale(Error):
    """The caller's ETag is of an older version."""

    kind = "stale"


class Unsupported(Error):
    """This host, driver or version cannot do it."""

    kind = "unsupported"


class Unavailable(Error):
    """Surely not done; the same request may succeed later."""

    kind = "unavailable"


class Exhausted(Error):
    """There is not enough of something: GPUs, disk, members."""

    kind = "exhausted"


class Uncertain(Error):
    """It may or may not have been done; ask before trying again under a new request id."""

    kind = "uncertain"


KINDS: dict[str, type[Error]] = {
    kind.kind: kind
    for kind in (
        Error, Invalid, Forbidden, NotFound, AlreadyExists, Conflict, Stale, Unsupported, Unavailable,
        Exhausted, Uncertain,
    )
}  # fmt: skip


def from_info(info: ErrorInfo) -> Error:
    """The error of that kind; a kind this version does not know becomes a plain `Error`."""
    return KINDS.get(info.kind, Error)(info.message, **info.facts)
