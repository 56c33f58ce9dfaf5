"""One operation of this member."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypedDict

from cluster.errors import Invalid
from lxdpy.resources.operations.model import (
    CANCELLED,
    CANCELLING,
    FAILURE,
    FINAL,
    PENDING,
    RUNNING,
    STATUS,
    SUCCESS,
    Class,
    OperationView,
)
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.websocket import Sockets

PROGRESS_EVERY = 0.25  # seconds between events of one operation's progress; people read no faster


class Options(TypedDict, total=False):
    """What an operation may have besides a description, resources and work."""

    id: str  # made beforehand, for a row that was to start it
    project: str
    kind: Class
    metadata: dict[str, Any]
    may_cancel: bool
    sockets: Sockets  # of class websocket: its secrets are shown in the metadata


class Operation:
    """State and progress. `changed` is called after each change; it is throttled for progress only.

    Used on the API loop only.
    """

    def __init__(
        self,
        id: str,
        description: str,
        resources: dict[str, list[str]],
        location: Callable[[], str],
        options: Options,
    ) -> None:
        self.id = id
        self.description = description
        self.resources = resources
        self.project = options.get("project", "")
        self.kind: Class = options.get("kind", "task")
        self.sockets = options.get("sockets")
        self.metadata: dict[str, Any] = dict(options.get("metadata", {}))
        if self.sockets is not None:
            self.metadata |= self.sockets.metadata
        self.may_cancel = options.get("may_cancel", False)
        self.err = ""
        self.status_code = PENDING
        self.created_at = self.updated_at = time.time()
        self.changed: Callable[[Operation], None] = lambda _: None
        self.task: asyncio.Task[None] | None = None
        self._location = location
        self._final = asyncio.Event()
        self._told_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_final(self) -> bool:
        return self.status_code >= FINAL

    def update(self, **metadata: Any) -> None:
        """Merge into the metadata and tell who listens. After the end it changes nothing."""
        if not self.is_final:
            self.metadata |= metadata
            self._tell()

    def progress(self, **metadata: Any) -> None:
        """As `update`, but events come no faster than people read: `progress(fs_progress="Unpack: 4%")`."""
        if self.is_final:
            return
        self.metadata |= metadata
        if self._timer is None:
            wait = max(0.0, self._told_at + PROGRESS_EVERY - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._tell)

    def started(self) -> None:
        self._turn(RUNNING)

    def succeeded(self) -> None:
        self._turn(SUCCESS)

    def failed(self, reason: str) -> None:
        self.err = reason
        self._turn(FAILURE)

    def cancelled(self) -> None:
        self.err = "Operation cancelled"
        self._turn(CANCELLED)

    def cancel(self) -> None:
        """Ask the work to stop; it may take a while to undo itself. Raises Invalid if it cannot be
        stopped, or if that was asked for before: its undoing must not be cut short.
        """
        if self.is_final or self.status_code == CANCELLING:
            raise Invalid("Only running operations can be cancelled")
        if not self.may_cancel:
            raise Invalid("This operation can't be cancelled")
        self._turn(CANCELLING)
        if self.task is not None:
            self.task.cancel()

    async def wait(self, timeout: float | None = None) -> bool:
        """Whether it came to an end within `timeout` seconds; None: however long it takes."""
        try:
            async with asyncio.timeout(timeout):
                await self._final.wait()
        except TimeoutError:
            return False
        return True

    def shown(self) -> OperationView:
        return OperationView(
            id=self.id,
            kind=self.kind,
            description=self.description,
            created_at=rfc3339(self.created_at),
            updated_at=rfc3339(self.updated_at),
            status=STATUS[self.status_code],
            status_code=self.status_code,
            resources=self.resources or None,
            metadata=self.metadata or None,
            may_cancel=self.may_cancel and not self.is_final,
            err=self.err,
            location=self._location(),
        )

    def _turn(self, code: int) -> None:
        self.status_code = code
        if self.is_final:
            self._final.set()
        self._tell()

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.updated_at = time.time()
        self._told_at = time.monotonic()
        self.changed(self)
