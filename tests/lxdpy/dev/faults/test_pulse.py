"""How long nobody could change anything."""

import socket
import time
from pathlib import Path

import pytest

from lxdpy.dev.faults.pulse import EVERY, RECOVERS, Pulse, Trouble, gaps, well_gap


def trouble(members: str, began: float, ended: float) -> Trouble:
    return Trouble("killed", frozenset(members), began, ended - RECOVERS)


def test_the_longest_gaps_are_told_first_with_what_was_wrong() -> None:
    longest, *others = gaps([5.0, 1.0, 1.5], [trouble("a", 2, 4), trouble("b", 5.5, 6)])
    assert longest.startswith("3.5 s until ")
    assert longest.endswith(" (killed a)")
    assert len(others) == 1
    assert "nothing was wrong" in others[0]
    assert gaps([], []) == []


@pytest.mark.parametrize(
    ("troubles", "expected"),
    [
        ([], 10.0),
        ([trouble("a", 2, 8)], 10.0),  # a minority
        ([trouble("ab", 2, 8)], 2.0),
        ([trouble("ab", 3, 20)], 3.0),
        ([trouble("ab", -9, 4)], 6.0),
        ([trouble("a", 2, 6), trouble("b", 5, 8)], 5.0),  # both from 5 to 6
        ([trouble("ab", -1, 10.1)], 0.4),
    ],
)
def test_times_without_a_majority_do_not_count(troubles: list[Trouble], expected: float) -> None:
    assert well_gap([10.0, 0.0, 10.5], troubles) == pytest.approx(expected)


def test_who_did_not_listen_for_a_while_was_absent(tmp_path: Path) -> None:
    path = tmp_path / "unix.socket"
    pulse = Pulse({"n1": path})
    pulse.start()
    time.sleep(3 * EVERY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        began = time.time()
        connection, _ = server.accept()
        connection.close()  # no answer, but somebody was there
        while not pulse.absences and time.time() < began + 10:
            time.sleep(0.01)
    pulse.stop()
    [absence] = pulse.absences
    assert absence.members == {"n1"}
    assert absence.ended > absence.began
    assert pulse.beats == []
