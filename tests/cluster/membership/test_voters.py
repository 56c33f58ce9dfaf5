import random

import pytest

from cluster.membership.model import Member, Status
from cluster.membership.voters import Presence, Roles, roles


def member(name: str, domain: str = "default", status: Status = "ready") -> Member:
    """Joined in the order of the alphabet."""
    return Member(name, name, status=status, failure_domain=domain, joined_at=float(ord(name[0])))


def chosen(
    members: str | list[Member],
    voting: str,
    alive: str | None = None,
    lost: str = "",
    **options: int | str,
) -> Roles:
    rows = [member(name) for name in members] if isinstance(members, str) else members
    here = frozenset(row.id for row in rows) - set(lost) if alive is None else frozenset(alive)
    return roles(rows, set(voting), Presence(here, frozenset(lost)), leader=voting[0], **options)  # type: ignore[arg-type]


def voters(*args: object, **options: object) -> str:
    return "".join(sorted(chosen(*args, **options).voters))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "voting", "wanted"),
    [
        ("a", "a", "a"),
        ("ab", "a", "a"),  # two votes would need both
        ("abc", "a", "abc"),
        ("abcd", "abc", "abc"),
        ("abcdefg", "abc", "abc"),
        ("ab", "ab", "a"),
    ],
)
def test_an_odd_number_of_the_oldest_votes(members: str, voting: str, wanted: str) -> None:
    assert voters(members, voting) == wanted


def test_the_number_of_votes_follows_the_setting_both_ways() -> None:
    assert voters("abcdefg", "abc", max_voters=5) == "abcde"
    assert voters("abcdefg", "abcde", max_voters=3) == "abc"
    assert voters("abcd", "abc", max_voters=5) == "abc"


def test_the_rest_stands_by_or_is_spare() -> None:
    assert chosen("abcdefg", "abc").standby == ("d", "e")
    assert chosen("abcdefg", "abc", max_standby=0).standby == ()
    assert chosen("abcdefg", "abc", lost="d").standby == ("e", "f")


def test_a_silent_voter_keeps_its_vote_and_a_lost_one_is_replaced() -> None:
    assert voters("abcde", "abc", alive="abde") == "abc"
    assert voters("abcde", "abc", lost="c") == "abd"


def test_a_lost_voter_keeps_its_vote_until_somebody_can_have_it() -> None:
    assert voters("abc", "abc", lost="c") == "abc"
    assert voters("abcd", "abc", alive="ab", lost="c") == "abc"


def test_the_leader_is_the_last_to_lose_its_vote() -> None:
    assert voters("abcde", "eabcd", max_voters=3) == "abe"


@pytest.mark.parametrize("status", ["joining", "leaving"])
def test_who_joins_or_leaves_does_not_vote(status: Status) -> None:
    rows = [member("a"), member("b"), member("c", status=status), member("d")]
    assert voters(rows, "abc") == "abd"
    assert "c" not in chosen(rows, "abc").standby


def test_a_leaving_leader_is_replaced_too_even_where_it_alone_votes() -> None:
    assert voters([member("a", status="leaving"), member("b")], "a") == "b"


def test_an_evacuated_member_goes_on_voting() -> None:
    assert voters([member("a"), member("b", status="evacuated"), member("c")], "abc") == "abc"


def test_votes_go_over_failure_domains() -> None:
    rows = [member(n, d) for n, d in zip("abcdef", ["x", "x", "x", "y", "y", "z"], strict=True)]
    assert voters(rows, "a") == "adf"
    assert chosen(rows, "adf").standby == ("b", "e")


def test_votes_move_when_domains_change_and_the_leaders_stays() -> None:
    rows = [member(n, d) for n, d in zip("abcdef", ["x", "x", "x", "y", "y", "z"], strict=True)]
    assert voters(rows, "cab") == "cdf"


def test_a_lost_voter_is_replaced_from_its_own_domain_if_the_others_have_one() -> None:
    rows = [member(n, d) for n, d in zip("abcdef", ["x", "y", "z", "x", "y", "z"], strict=True)]
    assert voters(rows, "abc", lost="c") == "abf"


def test_votes_come_to_rest_and_none_is_taken_needlessly() -> None:
    """What is wanted stays wanted once it is so; and no change leaves fewer living voters than there were."""
    dice = random.Random(7)
    for _ in range(300):
        names = "abcdefghi"[: dice.randint(1, 9)]
        rows = [member(name, dice.choice("xyz")) for name in names]
        voting = "".join(dice.sample(names, dice.randint(1, len(names))))
        lost = "".join(n for n in names if dice.random() < 0.2 and n != voting[0])
        limit = dice.choice([3, 5])
        found = chosen(rows, voting, lost=lost, max_voters=limit).voters
        order = "".join([voting[0], *sorted(found - {voting[0]})])
        assert voting[0] in found
        assert chosen(rows, order, lost=lost, max_voters=limit).voters == found
        assert len(found) % 2 == 1
        assert len(found) <= limit
        living = len(set(names) - set(lost))
        assert len(found - set(lost)) == min(len(found), living)
