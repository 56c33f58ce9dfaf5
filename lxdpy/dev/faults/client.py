"""One call of one client, and what its answer promises."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from lxdpy.dev.api import Connection
from lxdpy.dev.history import Outcome

# What the API promises by an answer. A create or change that is answered otherwise is a fault of its own.
PROMISES: dict[int, Outcome] = {
    200: "applied",
    201: "applied",
    412: "refused",
    503: "not applied",
    504: "unknown",
}
PATIENCE = (1.0, 4.0, 15.0)  # seconds; the daemon itself gives up after 10
PAUSE = 0.02  # seconds until another member is asked, if one does not listen
PADS = (0, 0, 200, 3000, 20_000)  # bytes that change nothing, so that logs grow and are compacted


class Answer(msgspec.Struct, frozen=True):
    """`status` is 0 if there was none: whatever was asked may still be done."""

    status: int = 0
    value: str = ""  # a profile's description
    etag: str = ""
    index: int = 0
    error: str = ""

    @property
    def outcome(self) -> Outcome:
        return PROMISES.get(self.status, "unknown")


class Notes:
    """What all clients count together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.unreachable = 0  # nobody listened, so nothing was asked
        self.odd: list[str] = []  # answers that no fault explains

    def note(self, verb: str, member: str, answer: Answer) -> None:
        with self._lock:
            self.outcomes[answer.outcome] += 1
            if answer.status and answer.status not in PROMISES:
                self.odd.append(f"{verb} at {member}: {answer.status} {answer.error}")


class Client:
    """Asks any member. `sockets` are by the members' names."""

    def __init__(self, sockets: Mapping[str, Path], notes: Notes, seed: str) -> None:
        self.sockets = dict(sockets)
        self.notes = notes
        self.dice = random.Random(seed)  # noqa: S311  # must be repeatable
        self.member = ""  # who was asked last

    def read(self, name: str, index: int = 0, *, linearizable: bool = False) -> Answer | None:
        headers = {"X-Lxdpy-Index": str(index)} | ({"X-Lxdpy-Linearizable": "true"} if linearizable else {})
        return self.ask("GET", f"/1.0/profiles/{name}", None, headers)

    def put(self, name: str, value: str, index: int, etag: str = "") -> Answer | None:
        body = {"description": value, "config": {"user.pad": "x" * self.dice.choice(PADS)}, "devices": {}}
        headers = {"X-Lxdpy-Index": str(index)} | ({"If-Match": etag} if etag else {})
        return self.ask("PUT", f"/1.0/profiles/{name}", body, headers)

    def create(self, name: str) -> int | None:
        """The profile is there as of that index, perhaps since an earlier try; None: ask again."""
        answer = self.ask("POST", "/1.0/profiles", {"name": name}, {}, also=409)
        return answer.index if answer and answer.status in (200, 201, 409) else None

    def ask(
        self, verb: str, url: str, body: object, headers: Mapping[str, str], *, also: int = -1
    ) -> Answer | None:
        """None if nobody listened. `also` is a status that is no fault here."""
        self.member = self.dice.choice(list(self.sockets))
        connection = Connection(self.sockets[self.member], self.dice.choice(PATIENCE))
        with closing(connection):
            try:
                connection.connect()
            except OSError:
                self.notes.unreachable += 1
                time.sleep(PAUSE)
                return None
            answer = _talk(connection, verb, url, body, headers)
        if answer.status != also:
            self.notes.note(verb, self.member, answer)
        return answer


def _talk(connection: Connection, verb: str, url: str, body: object, headers: Mapping[str, str]) -> Answer:
    try:
        connection.request(verb, url, None if body is None else json.dumps(body), dict(headers))
        reply = connection.getresponse()
        said = json.loads(reply.read())
    except (OSError, ValueError, http.client.HTTPException):
        return Answer()
    content = said.get("metadata") or {}
    return Answer(
        reply.status,
        content.get("description", "") if isinstance(content, dict) else "",
        reply.headers.get("ETag", ""),
        int(reply.headers.get("X-Lxdpy-Index", 0)),
        str(said.get("error", "")),
    )
