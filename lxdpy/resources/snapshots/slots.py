"""When snapshots are due: the slots of a schedule, each of them once. Times are UTC, as members may differ.

Of slots that passed while nobody looked, as the member was off, the last one counts. What was before the
schedule was set does not.
"""

import contextlib
from datetime import UTC, datetime
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from lxdpy.config.times import schedules
from lxdpy.resources.snapshots.model import Slot

AHEAD = 86400.0  # seconds; what is noted further ahead was done by a wrong clock, and does not count
NEVER = "@never"
AT_START = "@startup"  # of the instance
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@annually": "0 0 1 1 *",
    "@yearly": "0 0 1 1 *",
}


class Step(NamedTuple):
    """What is to be noted, and whether a snapshot is to be taken for it."""

    slot: Slot | None
    take: bool


def parts(schedule: str) -> tuple[str, ...]:
    """Aliases and lines of cron."""
    return schedules(schedule) if schedule else ()


def latest(schedule: str, now: float) -> float:
    """The last slot that is not after `now`; 0 for a schedule that has none."""
    moment = datetime.fromtimestamp(now + 1, UTC)  # CronSim goes back from it, and leaves it out
    found = [0.0]
    for part in parts(schedule):
        if part not in (NEVER, AT_START):
            with contextlib.suppress(CronSimError, StopIteration):  # the 31st of February
                found.append(next(CronSim(ALIASES.get(part, part), moment, reverse=True)).timestamp())
    return max(found)


def next_step(slot: Slot | None, schedule: str, now: float, looked: float, since: float = 0.0) -> Step | None:
    """What follows from how far the schedule was followed; None: nothing yet.

    A schedule that is new has been set since one `looked` the last time. Slots before `since` are not waited
    for any more.
    """
    if not schedule or schedule == NEVER:
        return Step(None, take=False) if slot is not None else None
    if slot is None or slot.schedule != schedule or slot.done > now + AHEAD:
        before, slot = slot, Slot(schedule, min(looked, now))
    else:
        before = slot
    due = latest(schedule, now)
    if due > slot.done and due >= since:
        return Step(Slot(schedule, due), take=True)
    return None if before == slot else Step(slot, take=False)
