"""The verdict finds what must not be, and counts."""

import random
from pathlib import Path

import pytest

from lxdpy.dev.faults.load import Entries, Load
from lxdpy.dev.faults.pulse import Pulse
from lxdpy.dev.faults.scene import Scene
from lxdpy.dev.faults.verdict import Account, Verdict, account, judge
from lxdpy.dev.history import Call
from lxdpy.dev.members import Cluster

ENTRIES = Entries({"a": "applied", "b": "unknown", "c": "not applied", "d": "refused"})


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ("a", Account([], [], [])),
        ("b a", Account([], [], [])),
        ("", Account(["a"], [], [])),
        ("a b b", Account([], ["b"], [])),
        ("a c", Account([], [], ["c (not applied)"])),
        ("a d", Account([], [], ["d (refused)"])),
        ("a e", Account([], [], ["e (never asked for)"])),
    ],
)
def test_a_ledger_is_held_against_what_clients_were_told(there: str, expected: Account) -> None:
    assert account(ENTRIES, there.split()) == expected


def judged(root: Path, load: Load, finals: dict[str, str]) -> Verdict:
    pulse = Pulse({})
    pulse.beats += [1.0, 3.0]
    return judge(Scene(Cluster("t", root, 3), random.Random(1)), load, pulse, "1", 60.0, finals)


def test_a_sound_run_has_no_wrongs(tmp_path: Path) -> None:
    load = Load({}, "1")
    load.entries["ledger0"] = ENTRIES
    load.calls.append(Call("register0", "read", "", 1, 2))
    verdict = judged(tmp_path, load, {"ledger0": "a"})
    assert verdict.wrongs == []
    assert verdict.entries == 1
    assert "acknowledged 1, lost 0" in verdict.text()
    assert "2.0 s while a majority was well" in verdict.text()


def test_each_wrong_is_told(tmp_path: Path) -> None:
    load = Load({}, "1")
    load.entries["ledger0"] = Entries({"a": "applied", "c": "not applied"}, ["too old"])
    load.calls.append(Call("register0", "read", "from nowhere", 1, 2))
    load.notes.odd.append("PUT at n1: 500 bug")
    verdict = judged(tmp_path, load, {"ledger0": "b b c"})
    verdict.unequal.append("n1 n2")
    verdict.surprises.append("n3 ended on its own")
    assert len(verdict.wrongs) == 9
    assert verdict.text().count("!!") == 9
