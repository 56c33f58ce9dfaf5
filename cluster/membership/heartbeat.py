"""PURE: who is alive, from the beats that were heard. The daemon's beat around it casts and listens.

Times are monotonic seconds of the member that listens, so that clocks need not agree.
"""

from collections import deque

import msgspec

BEAT_EVERY = 0.3  # seconds between beats in a small cluster
SMALL = 6  # members; everybody beats to everybody, so in larger ones each beats more slowly, at equal cost
LEAST_GRACE = 0.9  # seconds without a word before a member whose link is up counts as silent
MOST_GRACE = 3.5  # however irregular its beats were
REMEMBERED = 32  # gaps between beats


def pause(members: int) -> float:
    """Seconds between a member's beats: 0.6 among twelve, which then are dead to each other after 1.2."""
    return BEAT_EVERY * max(1.0, members / SMALL)


def until_next(every: float, wall_clock: float) -> float:
    """Seconds until the next beat: at the same moments on all members whose clocks agree.

    Who hears them is so woken up once for all of them, which costs less than what is said. Never so soon
    after the last beat, at `wall_clock`, that it would be two: after a jump of the clock, say.
    """
    left = every - wall_clock % every
    return left if left > every / 2 else left + every


class Verdict(msgspec.Struct, frozen=True):
    """`online` as `lxc cluster list` shows it, and how long the member has been silent.

    `silence` is in seconds: since its last word, if `known`; else since we began to listen.
    """

    online: bool
    silence: float
    known: bool = True


class Pulse:
    """The beats of one member. As patient as they were irregular lately: a busy host is no dead one."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._heard: float | None = None
        self._told: float | None = None
        self._gaps: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def grace(self) -> float:
        """Seconds of silence that say nothing yet."""
        longest = sorted(self._gaps)[-2:-1]  # but one: a single absence teaches nothing
        return min(MOST_GRACE, max(LEAST_GRACE, *(2 * gap for gap in longest), 0.0))

    def beat(self, now: float) -> None:
        """A word from the member itself."""
        gap = 0.0 if self._heard is None else now - self._heard
        if gap > BEAT_EVERY / 2:  # casts of other kinds come in bursts
            self._gaps.append(gap)
        self._heard = now

    def told(self, last: float) -> None:
        """Another member heard its last word then. That dates its silence; it makes nobody alive.

        Only what is news by a second counts, as tales grow younger on their way.
        """
        last_known = self._last()
        if last_known is None or last > last_known + 1:
            self._told = last

    def _last(self) -> float | None:
        known = [moment for moment in (self._heard, self._told) if moment is not None]
        return max(known, default=None)

    def verdict(self, linked: bool, now: float) -> Verdict:
        last = self._last()
        alive = self._heard is not None and now - self._heard <= self.grace
        silence = max(0.0, now - (self._since if last is None else last))
        return Verdict(linked and alive, silence, last is not None)
