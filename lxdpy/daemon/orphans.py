"""Operations whose member was lost: whoever waits for their end by events, at another member, is told of it.

The stock client waits so, and for ever: only the owner tells how an operation goes, and one that died tells
nothing. So each member remembers which operations of others it has heard of and not yet heard the end of.
When their owner has been silent for a while, or has come back without them, it says to its own listeners that
they have failed. What was asked for may have been done all the same; the text says so.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.errors import Error
from cluster.membership.model import name_of
from lxdpy.resources.operations.model import FAILURE, FINAL, STATUS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

LOOK_EVERY = 1.0  # seconds
SILENT_FOR = 10.0  # seconds until a silent member's operations are given up: more than a pause or an election
ABSENT = 2  # looks that an operation must be missing from its owner's list: a new daemon takes some up again
ANSWERS_WITHIN = 2.0  # seconds for the owner's list
MOST = 4096  # operations that are remembered; the oldest are forgotten first


class View(msgspec.Struct):
    """What matters of an operation as it is shown."""

    id: str
    status_code: int


class Told(msgspec.Struct):
    """What matters of an event."""

    metadata: View


class Known(msgspec.Struct):
    """An operation that goes on, as far as is known here."""

    member: str  # id
    project: str
    event: bytes  # the last one heard
    absent: int = 0


class Orphans:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._cut: set[str] = set()  # members whose link went down while they had operations
        daemon.hub.on_operation(self.heard)
        daemon.store.on_link(self.linked)

    def heard(self, member: str, project: str, event: bytes) -> None:
        """Of another member's operation."""
        view = msgspec.json.decode(event, type=Told).metadata
        if view.status_code >= FINAL:
            self._known.pop(view.id, None)
            return
        self._known[view.id] = Known(member, project, event)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def linked(self, member: str, up: bool) -> None:
        if not up and any(known.member == member for known in self._known.values()):
            self._cut.add(member)

    async def step(self) -> None:
        """Look after the members that were cut off."""
        for member in sorted(self._cut):
            verdict = self._daemon.beat.verdict(member)
            if not verdict.online:
                if verdict.silence > SILENT_FOR:
                    self._give_up(member, self._of(member))
            else:
                await self._ask(member)
            if not self._of(member):
                self._cut.discard(member)

    async def _ask(self, member: str) -> None:
        """What it does not know any more is over; what it knows goes on, or its end was not heard."""
        path = "/internal/operations"
        try:
            rows = await self._daemon.forwarder.ask(member, "GET", path, timeout=ANSWERS_WITHIN)
        except Error:
            return  # it is still starting, say: another look
        there: dict[str, dict[str, Any]] = {row["id"]: row for row in rows}
        lost = []
        for id in self._of(member):
            known = self._known[id]
            known.absent = 0 if id in there else known.absent + 1
            if known.absent >= ABSENT:
                lost.append(id)
            elif id in there and there[id]["status_code"] >= FINAL:
                self._tell(id, {key: value for key, value in there[id].items() if key != "project"})
        self._give_up(member, lost)
        if all(id in there for id in self._of(member)):
            self._cut.discard(member)

    def _of(self, member: str) -> list[str]:
        return [id for id, known in self._known.items() if known.member == member]

    def _give_up(self, member: str, operations: list[str]) -> None:
        name = name_of(self._daemon.state, member)
        why = f"Member {name} was lost meanwhile: what was asked for may have been done, or not"
        for id in operations:
            event = msgspec.json.decode(self._known[id].event)
            failed = {"status": STATUS[FAILURE], "status_code": FAILURE, "err": why, "may_cancel": False}
            self._tell(id, event["metadata"] | failed)

    def _tell(self, id: str, view: dict[str, Any]) -> None:
        known = self._known.pop(id)
        location = name_of(self._daemon.state, known.member)
        self._daemon.hub.publish("operation", view, project=known.project, location=location, cast=False)
