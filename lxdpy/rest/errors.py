"""Kinds of error and LXD's HTTP status codes, both ways."""

from http import HTTPStatus

import msgspec

from cluster.errors import Error, ErrorInfo, Invalid, from_info

STATUS: dict[str, HTTPStatus] = {
    "invalid": HTTPStatus.BAD_REQUEST,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "already-exists": HTTPStatus.CONFLICT,
    "stale": HTTPStatus.PRECONDITION_FAILED,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
    "unsupported": HTTPStatus.NOT_IMPLEMENTED,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "exhausted": HTTPStatus.SERVICE_UNAVAILABLE,
    "uncertain": HTTPStatus.GATEWAY_TIMEOUT,
}

# The first kind of a status is the one it is read back as: the more general of the two.
_KINDS: dict[int, str] = {status.value: kind for kind, status in reversed(STATUS.items())}


def status_of(error: Error) -> int:
    """A kind this version does not know is a failure of ours: 500."""
    return STATUS.get(error.kind, HTTPStatus.INTERNAL_SERVER_ERROR).value


def kind_of(status: int) -> str:
    """The kind of an answer's status; "internal" for one we never send."""
    return _KINDS.get(status, "internal")


def error_of(status: int, message: str) -> Error:
    """The error that another server, or LXD itself, answered."""
    return from_info(ErrorInfo(kind_of(status), message))


def bad_body(error: msgspec.MsgspecError) -> Invalid:
    """The path of the wrong value is in msgspec's own message: "Expected `str`, got `int` - at `$.name`"."""
    return Invalid(f"Bad request body: {error}")
