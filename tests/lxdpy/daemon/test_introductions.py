"""Who votes is told over new links, and the newest that was told counts."""

from typing import Any, cast

from cluster.membership.identity import Peer, Voters
from cluster.membership.model import MEMBERS, Member
from lxdpy.daemon.introductions import Introductions
from tests.lxdpy.fakes import LocalStore


def test_who_has_a_new_link_hears_of_the_voters_and_knows_the_newest() -> None:
    knows, away = LocalStore("a", founded=False), LocalStore("b", founded=False)
    knows.peers, knows.voters = [away], frozenset("ad")
    telling, told = (Introductions(cast(Any, store)) for store in (knows, away))
    heard: list[Voters] = []
    told.heard = lambda: heard.append(told.newest)
    for id in "abcd":
        knows.put(MEMBERS, id, Member(id, id.upper(), address=f"10.0.0.1:{ord(id)}", certificate=id))
    index = knows.state.index
    knows.link("b", True)
    voters = Voters(index, {"a": Peer("10.0.0.1:97", "a"), "d": Peer("10.0.0.1:100", "d")})
    assert heard == [voters]
    telling.tell()  # nothing new
    knows.put(MEMBERS, "c", None)
    knows.link("b", False)
    assert heard == [voters]
    knows.link("b", True)
    assert heard == [voters, Voters(index + 1, voters.peers)]
    away.hear("c", {"type": "voters", "voters": {"index": index, "peers": {}}})  # it was away as well
    assert told.newest.index == index + 1
    knows.voters = frozenset("ab")  # without a change of the state
    knows.elect("b")
    assert told.newest.peers == {**voters.peers, "b": Peer("10.0.0.1:98", "b")}
    told.forget()
    assert told.newest == Voters()


def test_who_has_that_state_itself_is_told_nothing_by_it() -> None:
    knows, knows_too = LocalStore("a"), LocalStore("a")
    knows.peers = [knows_too]
    told = Introductions(cast(Any, knows_too))
    Introductions(cast(Any, knows)).tell()
    assert (knows.state.index, told.newest) == (knows_too.state.index, Voters())
