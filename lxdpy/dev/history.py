"""PURE: calls of clients that run at the same time, and whether one register a key explains their answers.

Linearizable: every call seems to happen at one instant between its beginning and its end. The search is that
of Wing and Gong with Lowe's memory of what was tried (doi:10.1002/cpe.3928). Values must be unique: each is
put by one call at most.

What became of a call: "applied"; "refused" by a precondition, which is an answer too: the value was another
one; "not applied", as the server promised; "unknown": it may happen at any time after it began, or never.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Literal

import msgspec

Kind = Literal["read", "write", "swap"]
Outcome = Literal["applied", "refused", "not applied", "unknown"]


class Call(msgspec.Struct, frozen=True):
    key: str
    kind: Kind
    value: str  # what was read, or is to be put
    began: float  # seconds
    ended: float = inf
    outcome: Outcome = "applied"
    expected: str = ""  # of a swap: it puts `value` if this is there
    member: str = ""  # who was asked; for the reader of a complaint


def complaints(calls: Iterable[Call], initial: str = "") -> Iterator[str]:
    """What no register that starts with `initial` can have answered, in words; nothing if all is well."""
    by_key: dict[str, list[Call]] = {}
    for call in calls:
        by_key.setdefault(call.key, []).append(call)
    for key, own in sorted(by_key.items()):
        yield from _ghosts(own)
        if stuck := search(_telling(own), initial):
            yield f"{key} is not linearizable:\n{stuck}"


def _ghosts(calls: Sequence[Call]) -> Iterator[str]:
    """Values that were seen although the server had said that they would never be there."""
    seen = _seen(calls)
    for call in calls:
        if call.kind != "read" and call.outcome in ("refused", "not applied") and call.value in seen:
            yield f"{call.outcome}, but seen: {_words(call)}"


def _seen(calls: Iterable[Call]) -> set[str]:
    """Values that were there for sure."""
    return {
        call.expected if call.kind == "swap" else call.value
        for call in calls
        if call.outcome == "applied" and call.kind != "write"
    }


def _telling(calls: Sequence[Call]) -> list[Call]:
    """Those that say something of the register.

    What is unknown and was never seen may just as well never have happened; leaving it out keeps the search
    short. But it may be why a swap was refused, so refusals that it may explain are left out with it.
    """
    seen, happened = _seen(calls), set[Call]()
    unknown = {call for call in calls if call.outcome == "unknown" and call.kind != "read"}
    while found := {call for call in unknown - happened if call.value in seen}:
        happened |= found
        seen |= {call.expected for call in found if call.kind == "swap"}
    unseen = min((call.began for call in unknown - happened), default=inf)
    return [
        call
        for call in calls
        if call.outcome == "applied"
        or (call.outcome == "refused" and call.ended < unseen)
        or call in happened
    ]


def search(calls: Iterable[Call], initial: str) -> str:
    """Find an order that explains all calls; "" if there is one, else where it ends, in words."""
    calls = sorted(calls, key=lambda call: call.began)
    wanted = sum(1 << place for place, call in enumerate(calls) if call.ended != inf)
    tried = {(0, initial)}
    waiting = [(0, initial)]
    deepest = (0, initial)
    while waiting:
        done, value = waiting.pop()
        if done & wanted == wanted:
            return ""
        if done.bit_count() > deepest[0].bit_count():
            deepest = (done, value)
        for place in _next(calls, done):
            after = _step(calls[place], value)
            if after is not None and (found := (done | 1 << place, after)) not in tried:
                tried.add(found)
                waiting.append(found)
    return _stuck(calls, *deepest)


def _next(calls: Sequence[Call], done: int) -> Iterator[int]:
    """Places of the calls that may come now: those that began before any other open one had ended."""
    first_end = inf
    place = (~done & (done + 1)).bit_length() - 1  # the first that is not done
    while place < len(calls) and calls[place].began <= first_end:
        if not done >> place & 1:
            first_end = min(first_end, calls[place].ended)
            yield place
        place += 1


def _step(call: Call, value: str) -> str | None:
    """The register after the call; None if the call cannot have come upon `value`."""
    if call.kind == "write":
        return call.value
    if call.kind == "read":
        return value if call.value == value else None
    if call.outcome == "refused":
        return value if call.expected != value else None
    return call.value if call.expected == value else None


def _stuck(calls: Sequence[Call], done: int, value: str) -> str:
    """The furthest that any order came, and what could not follow."""
    lines = [f"  {done.bit_count()} of {len(calls)} calls can be put in order, which leave {value!r}; then:"]
    lines += [f"  {_words(calls[place])}" for place in _next(calls, done)]
    return "\n".join(lines)


def _words(call: Call) -> str:
    what = {"read": f"read {call.value!r}", "write": f"write {call.value!r}"}.get(
        call.kind, f"swap {call.expected!r} for {call.value!r}"
    )
    return f"{call.began:.4f}–{call.ended:.4f} {call.key} {what} at {call.member or '?'}: {call.outcome}"
