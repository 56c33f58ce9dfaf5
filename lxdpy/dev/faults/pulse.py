"""How long nobody could change anything, and what was wrong meanwhile.

The load's clients say little of it: those that wait for a member that does not answer are missing elsewhere.
"""

import http.client
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from lxdpy.dev.api import Refused, ask

EVERY = 0.1  # seconds between changes through one member
PATIENCE = 2.0  # seconds; an election is over by then
RECOVERS = 3.0  # seconds after a fault, or a start, until a victim may be expected to take part again
VOTERS = 3  # as many members count, by default, however many there are
TOLD = 3  # gaps


class Trouble(msgspec.Struct, frozen=True):
    name: str
    members: frozenset[str]
    began: float  # unix seconds
    ended: float


class Pulse:
    """Small changes through each member, one after the other; `beats` are those that were acknowledged.

    `absences` are the times when a daemon did not even listen.
    """

    def __init__(self, sockets: Mapping[str, Path]) -> None:
        self.beats: list[float] = []  # unix seconds
        self.absences: list[Trouble] = []
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, args=(name, socket), name=f"pulse {name}")
            for name, socket in sockets.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _beat(self, name: str, socket: Path) -> None:
        absent_since: float | None = None
        while not self._ending.wait(EVERY):
            tried = time.time()
            try:
                change(socket, f"pulse-{name}", str(tried))
                self.beats.append(time.time())
            except (ConnectionRefusedError, FileNotFoundError):
                absent_since = absent_since or tried
                continue
            except (OSError, ValueError, http.client.HTTPException, Refused):
                pass  # no beat
            if absent_since is not None:
                self.absences.append(Trouble("absent", frozenset([name]), absent_since, tried))
                absent_since = None


def change(socket: Path, profile: str, description: str) -> None:
    """Raises Refused, or OSError if nobody answers."""
    try:
        ask(socket, "PATCH", f"/1.0/profiles/{profile}", {"description": description}, timeout=PATIENCE)
    except Refused as refusal:
        if refusal.status != 404:
            raise
        ask(socket, "POST", "/1.0/profiles", {"name": profile}, timeout=PATIENCE)


def gaps(beats: Iterable[float], troubles: Collection[Trouble]) -> list[str]:
    """The longest first, with the troubles of that time."""
    longest = sorted(pairwise(sorted(beats)), key=lambda gap: gap[0] - gap[1])[:TOLD]
    return [_words(began, ended, troubles) for began, ended in longest]


def _words(began: float, ended: float, troubles: Collection[Trouble]) -> str:
    found = [
        f"{trouble.name} {','.join(sorted(trouble.members))}"
        for trouble in troubles
        if trouble.began < ended and began < trouble.ended + RECOVERS
    ]
    until = time.strftime("%X", time.localtime(ended))
    return f"{ended - began:.1f} s until {until} ({', '.join(found) or 'nothing was wrong'})"


def well_gap(beats: Iterable[float], troubles: Collection[Trouble]) -> float:
    """The longest time without a beat while at no time a majority of voters may have been in trouble."""
    ill = list(_ill(troubles))
    longest = 0.0
    for began, ended in pairwise(sorted(beats)):
        for since, until in ill:
            if began < until and since < ended:
                longest = max(longest, since - began)
                began = until
        longest = max(longest, ended - began)
    return longest


def _ill(troubles: Collection[Trouble]) -> Iterator[tuple[float, float]]:
    """Times when so many members had, or just had had, trouble that they may be most voters, in order."""
    times = sorted({t.began for t in troubles} | {t.ended + RECOVERS for t in troubles})
    for since, until in pairwise(times):
        victims = set[str]().union(*(t.members for t in troubles if t.began <= since < t.ended + RECOVERS))
        if len(victims) * 2 > VOTERS:
            yield since, until
