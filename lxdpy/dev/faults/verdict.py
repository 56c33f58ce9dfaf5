"""What a run came to: counts, and everything that must not be."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from lxdpy.dev.faults.load import Entries, Load
from lxdpy.dev.faults.pulse import Pulse, gaps, well_gap
from lxdpy.dev.faults.scene import Scene
from lxdpy.dev.history import complaints


class Verdict(msgspec.Struct):
    seed: str
    members: int
    seconds: float
    faults: dict[str, int]
    kills: int
    calls: dict[str, int]  # by outcome
    unreachable: int
    gaps: list[str]  # the longest times in which nobody could change anything
    well_gap: float  # seconds; the longest while a majority was well
    entries: int  # acknowledged, in ledgers
    lost: list[str]
    doubled: list[str]
    ghosts: list[str]  # found, though refused or answered 503
    stale: list[str]
    unordered: list[str]  # keys that are not linearizable
    unequal: list[str]  # digests of members, if they differ
    surprises: list[str]  # daemons that ended on their own
    odd: list[str]  # answers that no fault explains

    @property
    def wrongs(self) -> list[str]:
        lists = {
            "lost": self.lost, "done twice": self.doubled, "not applied, but there": self.ghosts,
            "stale": self.stale, "not linearizable": self.unordered, "unequal": self.unequal,
            "surprise": self.surprises, "odd answer": self.odd,
        }  # fmt: skip
        return [f"{name}: {text}" for name, texts in lists.items() for text in texts]

    def text(self) -> str:
        faults = sum(count for name, count in self.faults.items() if not name.startswith(" "))
        lines = [
            f"seed {self.seed}, {self.members} members, {self.seconds:.0f} s",
            f"faults {faults}: " + ", ".join(f"{name.strip()} {n}" for name, n in self.faults.items()),
            f"kill -9 of a daemon {self.kills}",
            "calls " + ", ".join(f"{name} {count}" for name, count in sorted(self.calls.items()))
            + f"; nobody listened {self.unreachable}",
            f"longest without a change {self.well_gap:.1f} s while a majority was well; else "
            + "; ".join(self.gaps),
            f"ledger entries acknowledged {self.entries}, lost {len(self.lost)}, done twice "
            f"{len(self.doubled)}, there though not applied {len(self.ghosts)}",
            f"stale answers {len(self.stale)}, keys not linearizable {len(self.unordered)}, members unequal "
            f"{len(self.unequal)}, surprises {len(self.surprises)}, odd answers {len(self.odd)}",
        ]  # fmt: skip
        return "\n".join(lines + [f"!! {wrong}" for wrong in self.wrongs])


def judge(
    scene: Scene, load: Load, pulse: Pulse, seed: str, seconds: float, finals: Mapping[str, str]
) -> Verdict:
    """`finals` are the ledgers after all was healed. The members' digests are compared by `run`."""
    notes = load.notes
    counts = {name: account(entries, finals[name].split()) for name, entries in load.entries.items()}
    return Verdict(
        seed=seed,
        members=len(scene.members),
        seconds=seconds,
        faults=dict(scene.done),
        kills=scene.kills,
        calls=dict(notes.outcomes),
        unreachable=notes.unreachable,
        gaps=gaps(pulse.beats, scene.troubles),
        well_gap=well_gap(pulse.beats, [*scene.troubles, *pulse.absences]),
        entries=sum(list(entries.outcomes.values()).count("applied") for entries in load.entries.values()),
        lost=[f"{name} {token}" for name, account in counts.items() for token in account.lost],
        doubled=[f"{name} {token}" for name, account in counts.items() for token in account.doubled],
        ghosts=[f"{name} {token}" for name, account in counts.items() for token in account.ghosts],
        stale=[text for entries in load.entries.values() for text in entries.stale],
        unordered=list(complaints(load.calls)),
        unequal=[],
        surprises=scene.surprises,
        odd=notes.odd,
    )


class Account(msgspec.Struct, frozen=True):
    lost: list[str]
    doubled: list[str]
    ghosts: list[str]


def account(entries: Entries, there: Sequence[str]) -> Account:
    """A ledger against what clients were told of it."""
    counted = Counter(there)
    return Account(
        lost=[
            token
            for token, outcome in entries.outcomes.items()
            if outcome == "applied" and not counted[token]
        ],
        doubled=[token for token, count in counted.items() if count > 1],
        ghosts=list(_ghosts(entries, counted)),
    )


def _ghosts(entries: Entries, there: Iterable[str]) -> Iterator[str]:
    for token in there:
        outcome = entries.outcomes.get(token, "never asked for")
        if outcome not in ("applied", "unknown"):
            yield f"{token} ({outcome})"
