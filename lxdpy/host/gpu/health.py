"""What can be seen of a card's health, what it means, and how long that lasts. Pure; the policy is data.

    ok ── a sign of trouble ──▶ suspect, failed ── no sign any more ──▶ recovering ── three good looks ──▶ ok

A fault that only a reset of the card ends stays until the machine has been started anew, or an operator says
that it is mended (`lxdpy gpu enable`). Whatever is not ok is granted to nobody new.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

Health = Literal["ok", "suspect", "failed", "recovering"]
Remapping = Literal["", "pending", "failed"]
WORST = ("failed", "suspect", "recovering", "ok")


class Signs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a look at one card shows; a card without any is well."""

    lost: bool = False  # it is on the bus and does not answer
    ecc: int = 0  # memory errors that could not be corrected, since the driver was loaded
    remapping: Remapping = ""  # of bad rows of memory: waits for a reset, or was not possible
    xid: int = 0  # a fault that the driver reported; 0: none
    said: Health = "ok"  # made-up cards only


class Meaning(msgspec.Struct, frozen=True):
    """Of an XID, the code of a fault in NVIDIA's driver."""

    health: Health
    reset: bool = False  # of failed: only a reset of the card ends it


FAULT_OF_THE_PROGRAM = Meaning("ok")
XIDS: Mapping[int, Meaning] = {
    # As NVIDIA's own device plugin has it, the program that ran is to blame for these.
    **dict.fromkeys((13, 31, 43, 45, 68, 109), FAULT_OF_THE_PROGRAM),
    48: Meaning("failed", reset=True),  # double-bit error
    63: Meaning("suspect"),  # a row is to be remapped
    64: Meaning("failed", reset=True),  # and could not be
    74: Meaning("failed", reset=True),  # NVLink
    79: Meaning("failed", reset=True),  # fallen off the bus
    92: Meaning("suspect"),  # many single-bit errors
    94: Meaning("suspect"),  # uncorrected, but contained: the program it struck is gone
    95: Meaning("failed", reset=True),  # uncorrected and not contained
    119: Meaning("failed", reset=True),  # its own processor does not answer
    120: Meaning("failed", reset=True),
}
UNKNOWN = Meaning("suspect")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How signs are judged."""

    xids: Mapping[int, Meaning] = msgspec.field(default_factory=lambda: XIDS)
    probes: int = 3  # good looks in a row until a card is well again
    every: float = 30.0  # seconds between two of them
    burst: int = 10  # faults of programs within BURST_WITHIN that make the card itself suspect

    def meaning(self, xid: int) -> Meaning:
        return self.xids.get(xid, UNKNOWN) if xid else FAULT_OF_THE_PROGRAM


POLICY = Policy()
BURST_WITHIN = 600.0  # seconds


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a card is worth, and why."""

    health: Health = "ok"
    reason: str = ""
    lasting: str = ""  # the part of the reason that only a reset ends
    boot: str = ""  # the start of the machine that this was in


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and what was seen on the way to it."""

    verdict: Verdict = Verdict()
    good: int = 0  # looks in a row without a sign, while recovering
    looked: float = 0.0  # time of the last of them
    faults: tuple[float, ...] = ()  # times of the last faults of programs


def judged(signs: Signs, policy: Policy = POLICY) -> Verdict:
    """What a card is worth by its signs of now alone."""
    meaning = policy.meaning(signs.xid)
    found: list[tuple[Health, str]] = [
        ("failed" if signs.lost else "ok", "does not answer"),
        ("failed" if signs.ecc else "ok", f"{signs.ecc} uncorrected memory errors"),
        ("failed" if signs.remapping == "failed" else "ok", "rows of memory could not be remapped"),
        ("suspect" if signs.remapping == "pending" else "ok", "remapping of memory waits for a reset"),
        (meaning.health, f"XID {signs.xid}"),
        (signs.said, "said so"),
    ]
    health = min((each for each, _ in found), key=WORST.index)
    reasons = ", ".join(word for each, word in found if each != "ok")
    return Verdict(health, reasons)


def next_record(
    before: Record, signs: Signs, xids: Sequence[int], *, now: float, boot: str, policy: Policy
) -> Record:
    """After a look: `xids` are the faults that the driver reported since the last one.

    `now` in seconds, of any clock that does not jump; `boot` names this start of the machine.
    """
    before = msgspec.structs.replace(before, faults=_recent(before.faults, xids, now, policy))
    seen = _worst([judged(signs, policy), *(_after(xid, boot, policy) for xid in (*xids, signs.xid))])
    if seen.health == "ok" and len(before.faults) >= policy.burst:
        seen = Verdict(
            "suspect", f"{len(before.faults)} faults of programs in {BURST_WITHIN / 60:.0f} minutes"
        )
    was = before.verdict
    if was.lasting and was.boot == boot:
        seen = _worst([Verdict("failed", was.lasting, was.lasting, boot), seen])
    if seen.health not in ("ok", "recovering"):
        return msgspec.structs.replace(before, verdict=seen, good=0)
    if was.health == "ok" and seen.health == "ok":
        return msgspec.structs.replace(before, verdict=Verdict())
    return _recovering(before, now, policy)


def _recovering(before: Record, now: float, policy: Policy) -> Record:
    was = before.verdict
    if was.health != "recovering":
        after = was.reason.removeprefix("after: ")
        verdict = Verdict("recovering", f"after: {after}" if after else "")
        return msgspec.structs.replace(before, verdict=verdict, good=0, looked=now)
    if now - before.looked < policy.every:
        return before
    if before.good + 1 >= policy.probes:
        return msgspec.structs.replace(before, verdict=Verdict(), good=0)
    return msgspec.structs.replace(before, good=before.good + 1, looked=now)


def _after(xid: int, boot: str, policy: Policy) -> Verdict:
    meaning = policy.meaning(xid)
    if meaning.health == "ok":
        return Verdict()
    word = f"XID {xid}"
    return Verdict("failed", word, word, boot) if meaning.reset else Verdict(meaning.health, word)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them, for the reasons of all that are as bad."""
    health = min((each.health for each in verdicts), key=WORST.index)
    worst = [each for each in verdicts if each.health == health]
    return Verdict(
        health,
        _listed(each.reason for each in worst),
        _listed(each.lasting for each in worst),
        next((each.boot for each in worst if each.lasting), ""),
    )


def _listed(reasons: Iterable[str]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(word for reason in reasons for word in reason.split(", ") if word))


def _recent(faults: tuple[float, ...], xids: Sequence[int], now: float, policy: Policy) -> tuple[float, ...]:
    fresh = [now for xid in xids if policy.meaning(xid).health == "ok"]
    return tuple(at for at in (*faults, *fresh) if now - at < BURST_WITHIN)[-policy.burst :]


MEANINGS: Mapping[str, Meaning] = {
    "ok": FAULT_OF_THE_PROGRAM,
    "suspect": Meaning("suspect"),
    "failed": Meaning("failed"),
    "failed!": Meaning("failed", reset=True),
}


def xids_of(written: str) -> dict[int, Meaning]:
    """The meanings that a text such as `94=ok 79=failed!` gives, on top of XIDS; `!`: until a reset.

    Raises ValueError.
    """
    found: dict[int, Meaning] = {}
    for word in written.replace(",", " ").split():
        code, _, meant = word.partition("=")
        if not (code.isascii() and code.isdigit() and len(code) < 4) or meant not in MEANINGS:
            raise ValueError("words such as 94=ok 109=suspect 79=failed! (that lasts until a reset)")
        found[int(code)] = MEANINGS[meant]
    return {**XIDS, **found}
