"""What a follower believes of its leader's entries: nothing is cut but what conflicts."""

import pytest

from cluster.raft.appends import Impossible, Known, Take, judge, jump_back
from cluster.raft.messages import Append
from cluster.raft.snapshot import Entry


class Log:
    def __init__(self, terms: list[int], first: int = 1) -> None:
        self.first = first
        self.terms = terms

    @property
    def last(self) -> int:
        return self.first + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        return self.terms[index - self.first] if self.first <= index <= self.last else None


def entries(*pairs: tuple[int, int]) -> list[Entry]:
    return [(b"\0", index, term) for index, term in pairs]


def append(previous: tuple[int, int], *pairs: tuple[int, int], commit: int = 0, term: int = 9) -> Append:
    return Append(term, commit, previous[0], previous[1], entries(*pairs))


def test_new_entries_are_taken() -> None:
    message = append((3, 1), (4, 2), (5, 2))
    assert judge(message, Log([1, 1, 1]), 3) == Take(message)


def test_a_repeated_message_cuts_nothing() -> None:
    log = Log([1, 1, 1, 1, 1])
    assert judge(append((1, 1), (2, 1), (3, 1), commit=5), log, 0) == Known(upto=3, commit=3)


def test_a_late_heartbeat_cuts_nothing() -> None:
    assert judge(append((2, 1), commit=5), Log([1, 1, 1, 1]), 0) == Known(upto=2, commit=2)


def test_nothing_behind_what_was_compared_is_committed() -> None:
    verdict = judge(append((2, 1), (3, 1), commit=9), Log([1, 1, 1, 1]), 0)
    assert verdict == Known(upto=3, commit=3)


def test_only_what_is_new_of_an_overlapping_message_is_taken() -> None:
    verdict = judge(append((1, 1), (2, 1), (3, 1), (4, 2)), Log([1, 1, 1]), 3)
    assert verdict == Take(append((3, 1), (4, 2)))


def test_a_conflict_is_cut_exactly_where_it_begins() -> None:
    verdict = judge(append((1, 1), (2, 1), (3, 3)), Log([1, 1, 2, 2]), 2)
    assert verdict == Take(append((2, 1), (3, 3)))


def test_a_conflict_with_a_committed_entry_is_impossible() -> None:
    assert isinstance(judge(append((1, 1), (2, 3)), Log([1, 2, 2]), 2), Impossible)


def test_entries_that_do_not_fit_are_left_to_the_library_to_refuse() -> None:
    for previous in ((3, 2), (7, 1)):
        verdict = judge(append(previous, (previous[0] + 1, 9)), Log([1, 1, 1]), 0)
        assert verdict == Take(append(previous))


def test_entries_before_the_first_one_here_are_passed_over() -> None:
    verdict = judge(append((2, 1), (3, 1), (4, 1), (5, 1), (6, 1)), Log([1, 1], first=4), 4)
    assert verdict == Take(append((5, 1), (6, 1)))


def test_a_message_that_ends_before_the_first_entry_here_brings_nothing() -> None:
    assert judge(append((1, 1), (2, 1)), Log([1, 1], first=4), 4) == Take(append((1, 1)))


def test_gaps_in_entries_are_not_read() -> None:
    with pytest.raises(ValueError, match="follow"):
        judge(append((1, 1), (2, 1), (4, 1)), Log([1]), 0)


def test_a_conflict_is_found_one_term_at_a_time_not_one_entry() -> None:
    log = Log([1, 1, 1, 2, 2, 2, 2, 2])
    assert jump_back(8, log, committed=2) == 4
    assert jump_back(8, log, committed=6) == 7
    assert jump_back(20, log, committed=2) == 20
