"""Operations on the wire."""

from typing import Any, Literal

import msgspec

Class = Literal["task", "websocket", "token"]

CREATED = 100
STARTED = 101
RUNNING = 103
CANCELLING = 104
PENDING = 105
SUCCESS = 200
FAILURE = 400
CANCELLED = 401

FINAL = 200  # codes from here on do not change any more

STATUS: dict[int, str] = {
    CREATED: "Operation created",
    STARTED: "Started",
    RUNNING: "Running",
    CANCELLING: "Cancelling",
    PENDING: "Pending",
    SUCCESS: "Success",
    FAILURE: "Failure",
    CANCELLED: "Cancelled",
}


class OperationView(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "class"}):
    """An operation as clients see it; fields in LXD's order. Dates in RFC 3339."""

    id: str
    kind: Class = "task"
    description: str
    created_at: str
    updated_at: str
    status: str = STATUS[RUNNING]
    status_code: int = RUNNING
    resources: dict[str, list[str]] | None = None  # type of noun -> URLs
    metadata: dict[str, Any] | None = None
    may_cancel: bool = False
    err: str = ""
    location: str = "none"

    def shown(self) -> object:
        return self
