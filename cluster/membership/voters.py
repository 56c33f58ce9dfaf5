"""PURE: which members should vote, and what role each has."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from cluster.membership.model import Member


class Roles(msgspec.Struct, frozen=True):
    """Member ids by role; all others are spares.

    Who does not vote follows the log all the same, so any of them can be given a vote at once; stand-bys are
    those who most likely will be.
    """

    voters: frozenset[str]
    standby: tuple[str, ...]


class Presence(msgspec.Struct, frozen=True):
    """Who is there. Who is neither `alive` nor `lost` may be back soon: a daemon that is being restarted."""

    alive: frozenset[str]
    lost: frozenset[str] = frozenset()


def roles(
    members: Iterable[Member],
    voting: Collection[str],
    presence: Presence,
    *,
    leader: str | None = None,
    max_voters: int = 3,
    max_standby: int = 2,
) -> Roles:
    """Voters wanted from `voting`, those that vote now: as few changes as will do, the leader's vote last.

    Their number is odd: of two voters, both are needed, so one alone survives more. A lost voter keeps its
    vote until somebody living can have it. Votes go over failure domains, also when domains change later.
    """
    able = {m.id: m for m in members if m.status in ("ready", "evacuated")}
    kept = [i for i in voting if i in able and i not in presence.lost]
    fresh = [i for i in able if i in presence.alive and i not in voting]
    last = [i for i in voting if i in able and i in presence.lost]
    size = _odd(min(max_voters, len(kept) + len(fresh) + len(last)))
    chosen: list[str] = [leader] if leader in kept else []
    for pool in (kept, fresh, last):
        _fill(chosen, pool, size, able, presence)
    _spread(chosen, fresh, able, fixed=leader)
    rest = [i for i in able if i not in chosen and i not in presence.lost]
    standby: list[str] = []
    _fill(standby, rest, max_standby, able, presence, beside=chosen)
    return Roles(frozenset(chosen), tuple(standby))


def _odd(count: int) -> int:
    return count if count % 2 else count - 1


def _fill(
    chosen: list[str],
    pool: Iterable[str],
    size: int,
    able: Mapping[str, Member],
    presence: Presence,
    beside: Iterable[str] = (),
) -> None:
    """Choose from the pool until there are `size`: the living, from the least crowded domain, the oldest."""
    left = set(pool) - set(chosen)
    while left and len(chosen) < size:
        crowd = Counter(able[i].failure_domain for i in (*chosen, *beside))
        best = min(
            left,
            key=lambda i: (i not in presence.alive, crowd[able[i].failure_domain], able[i].joined_at, i),
        )
        left.remove(best)
        chosen.append(best)


def _spread(chosen: list[str], fresh: Iterable[str], able: Mapping[str, Member], fixed: str | None) -> None:
    """Give votes of crowded domains to living members of emptier ones."""
    others = set(fresh) - set(chosen)
    while True:
        crowd = Counter(able[i].failure_domain for i in chosen)
        givers = [i for i in chosen if i != fixed]
        if not givers or not others:
            return
        giver = max(givers, key=lambda i: (crowd[able[i].failure_domain], able[i].joined_at, i))
        taker = min(others, key=lambda i: (crowd[able[i].failure_domain], able[i].joined_at, i))
        if crowd[able[giver].failure_domain] <= crowd[able[taker].failure_domain] + 1:
            return
        chosen[chosen.index(giver)] = taker
        others.remove(taker)
