"""The heartbeat around the pure verdict: members cast beats and note whom they hear.

Beats are no log entries: a cluster of dozens would write nothing but them. Any cast counts as one. Each beat
names the silent members and for how long they have been so, for those who have just started; and the time, so
that clocks which differ are noticed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cluster.membership.heartbeat import Pulse, Verdict, pause, until_next
from cluster.membership.model import MEMBERS
from cluster.raft.store import Store

CAST = "beat"
SKEWS = 4  # of the last beats: the smallest counts, as a beat may have waited on its way


class Beat:
    """Who is alive, as this member sees it. `clock` is monotonic seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._pulses: dict[str, Pulse] = {}
        self._skews: dict[str, deque[float]] = {}
        store.on_cast(self._heard)
        store.on_link(self._linked)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.beat()
            every = pause(len(self._store.state.rows(MEMBERS)))
            await asyncio.sleep(until_next(every, time.time()))

    def beat(self) -> None:
        for gone in self._pulses.keys() - self._store.state.rows(MEMBERS).keys():
            del self._pulses[gone]
            self._skews.pop(gone, None)
        self._cast(None)

    def _cast(self, to: str | None) -> None:
        judged = {member: self.verdict(member) for member in self._store.state.rows(MEMBERS)}
        silent = {m: v.silence for m, v in judged.items() if v.known and not v.online}
        self._store.cast({"type": CAST, "silent": silent, "now": time.time()}, to)

    def _linked(self, member: str, up: bool) -> None:
        """A member that has just come, or come back, need not wait for the next beat."""
        if up:
            self._cast(member)

    def _heard(self, member: str, message: dict[str, Any]) -> None:
        now = self._clock()
        self._pulse(member).beat(now)
        if message.get("type") == CAST:
            for other, silence in message.get("silent", {}).items():
                self._pulse(other).told(now - silence)
            if "now" in message:
                skews = self._skews.setdefault(member, deque(maxlen=SKEWS))
                skews.append(time.time() - message["now"])

    def skew(self, member: str | None) -> float | None:
        """Seconds by which this member's clock is ahead of that one's; None if that is not known yet."""
        skews = self._skews.get(member or "", ())
        return min(skews, key=abs) if len(skews) == SKEWS else None

    def _pulse(self, member: str) -> Pulse:
        return self._pulses.setdefault(member, Pulse(self._clock()))

    def online(self, member: str) -> bool:
        return self.verdict(member).online

    def verdict(self, member: str) -> Verdict:
        """This member itself is always online."""
        if member == self._store.member_id:
            return Verdict(True, 0.0)
        return self._pulse(member).verdict(member in self._store.links, self._clock())
