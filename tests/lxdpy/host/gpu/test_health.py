from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdpy.host.gpu.health import (
    BURST_WITHIN,
    POLICY,
    XIDS,
    Policy,
    Record,
    Signs,
    judged,
    next_record,
    xids_of,
)

WELL = Signs()


class Card:
    """One card, looked at every ten seconds."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy, self.record, self.now, self.boot = policy, Record(), 1000.0, "first"

    def look(self, signs: Signs = WELL, *xids: int) -> str:
        self.now += 10
        self.record = next_record(self.record, signs, xids, now=self.now, boot=self.boot, policy=self.policy)
        return self.record.verdict.health

    def looks(self, number: int) -> list[str]:
        return [self.look() for _ in range(number)]


@pytest.mark.parametrize(
    ("code", "health"),
    [(0, "ok"), (13, "ok"), (31, "ok"), (79, "failed"), (48, "failed"), (63, "suspect"), (999, "suspect")],
)
def test_xid_codes_have_a_meaning_for_health(code: int, health: str) -> None:
    assert judged(Signs(xid=code)).health == health
    assert Card().look(WELL, code) == health


@pytest.mark.parametrize(
    ("signs", "health", "reason"),
    [
        (Signs(lost=True), "failed", "does not answer"),
        (Signs(ecc=3), "failed", "3 uncorrected memory errors"),
        (Signs(remapping="pending"), "suspect", "remapping of memory waits for a reset"),
        (Signs(remapping="failed", xid=31), "failed", "rows of memory could not be remapped"),
        (Signs(remapping="pending", xid=48), "failed", "remapping of memory waits for a reset, XID 48"),
    ],
)
def test_the_worst_sign_counts_and_all_are_told(signs: Signs, health: str, reason: str) -> None:
    verdict = judged(signs)
    assert (verdict.health, verdict.reason) == (health, reason)


def test_a_fault_that_has_gone_is_watched_for_three_good_looks() -> None:
    card = Card()
    assert card.look(Signs(ecc=1)) == "failed"
    assert card.looks(9) == ["recovering"] * 9
    assert card.record.verdict.reason == "after: 1 uncorrected memory errors"
    assert card.look() == "ok"
    assert card.record.verdict.reason == ""


def test_a_relapse_begins_the_watch_anew() -> None:
    card = Card(Policy(every=10))
    card.look(Signs(lost=True))
    assert card.looks(3) == ["recovering"] * 3
    assert card.look(Signs(remapping="pending")) == "suspect"
    assert card.looks(4) == ["recovering", "recovering", "recovering", "ok"]


def test_a_fault_that_needs_a_reset_lasts_until_the_machine_starts_anew() -> None:
    card = Card(Policy(every=10))
    card.look(WELL, 79)
    assert set(card.looks(100)) == {"failed"}
    card.boot = "second"
    assert card.looks(4) == ["recovering", "recovering", "recovering", "ok"]


def test_a_lesser_sign_does_not_make_a_failed_card_better() -> None:
    card = Card()
    card.look(WELL, 48)
    assert card.look(Signs(remapping="pending")) == "failed"
    assert card.look(Signs(ecc=1)) == "failed"
    assert card.record.verdict.reason == "XID 48, 1 uncorrected memory errors"
    card.look()
    assert card.record.verdict.reason == "XID 48", "what has gone is not told any more"


def test_many_faults_of_programs_make_the_card_suspect_for_a_while() -> None:
    card = Card(Policy(burst=3, every=10))
    assert [card.look(WELL, 31), card.look(WELL, 13), card.look(WELL, 31)] == ["ok", "ok", "suspect"]
    assert card.record.verdict.reason == "3 faults of programs in 10 minutes"
    after = card.looks(int(BURST_WITHIN / 10) + 3)
    assert (after[-1], set(after)) == ("ok", {"suspect", "recovering", "ok"})


def test_a_policy_can_be_written_down() -> None:
    xids = xids_of("94=ok, 109=failed 7=failed!")
    card = Card(Policy(xids=xids))
    assert [card.look(WELL, 94), card.look(WELL, 109)] == ["ok", "failed"]
    assert (xids[7].reset, xids[109].reset, xids[79]) == (True, False, XIDS[79])
    for wrong in ("79", "x=ok", "79=recovering", "79=ok?", "79=ok!", "1000=ok"):
        with pytest.raises(ValueError, match="94=ok"):
            xids_of(wrong)


SIGNS = st.sampled_from(
    [WELL, WELL, WELL, Signs(lost=True), Signs(ecc=1), Signs(remapping="pending"), Signs(xid=79)]
)
LOOKS = st.lists(
    st.tuples(SIGNS, st.lists(st.sampled_from([13, 63, 79, 999]), max_size=2), st.booleans()), max_size=40
)


@given(LOOKS)
def test_a_card_is_never_ok_with_a_sign_and_always_ok_in_the_end(
    looks: list[tuple[Signs, Any, bool]],
) -> None:
    card = Card(Policy(every=10, burst=99))
    for signs, xids, restarted in looks:
        before = card.record.verdict.health
        card.boot += "'" if restarted else ""
        health = card.look(signs, *xids)
        if signs != WELL or {63, 79, 999} & set(xids):
            assert health in ("suspect", "failed")
        if before in ("suspect", "failed"):
            assert health != "ok", "it is watched first"
    card.boot += "'"
    assert card.looks(4)[-1] == "ok"
