"""What a member keeps of the state in its identity, for its next start."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cluster.errors import Invalid
from cluster.membership.identity import Identity, Peer, Voters, introduced
from cluster.membership.model import MEMBERS
from lxdpy.daemon.introductions import Introductions
from lxdpy.daemon.membership import Membership, followed
from lxdpy.resources.cluster.commands import LeaveMember, RemoveMember
from lxdpy.resources.server.commands import ConfigureServer
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.cluster.scene import OTHER, clustered


def test_a_joining_member_keeps_where_it_listens_until_it_has_told_it() -> None:
    """Else it would tell nothing after a start in between."""
    store = clustered()
    row = msgspec.structs.replace(store.state.get(MEMBERS, MEMBER_ID), status="joining")
    store.put(MEMBERS, MEMBER_ID, row)
    joined = Identity("c1", MEMBER_ID, listen=":8443", cluster_listen="10.0.0.1:8443")
    seen = followed(joined, store.state)
    assert (seen.listen, seen.cluster_listen) == (":8443", "10.0.0.1:8443")
    assert seen.peers.keys() == store.state.rows(MEMBERS).keys()
    store.run(ConfigureServer({}, MEMBER_ID, {"core.https_address": ":9443"}))
    store.put(MEMBERS, MEMBER_ID, msgspec.structs.replace(row, status="ready"))
    assert followed(seen, store.state).listen == ":9443"


def test_an_older_state_tells_nothing_of_members_and_the_same_one_nothing_new() -> None:
    """Who replays its log must not forget whom it was told to trust meanwhile, nor trust who is long gone."""
    store = clustered()
    known = Identity(
        "c1", MEMBER_ID, peers={"later": Peer("10.0.0.9:8443", "l")}, index=store.state.index + 1
    )
    assert followed(known, store.state) == known
    store.put(MEMBERS, "later", msgspec.structs.replace(store.state.get(MEMBERS, MEMBER_ID), id="later"))
    seen = followed(known, store.state)
    assert seen.peers.keys() == store.state.rows(MEMBERS).keys()
    assert seen.index == store.state.index
    store.run(ConfigureServer({}, MEMBER_ID, {"user.x": "1"}))
    assert followed(seen, store.state) == seen


def test_who_is_removed_while_its_certificate_is_renewed_is_known_by_both() -> None:
    """It may show the new one already, and has not come to say so."""
    store = clustered()
    row = msgspec.structs.replace(store.state.get(MEMBERS, OTHER), certificate="old ", next_certificate="new")
    store.put(MEMBERS, OTHER, row)
    before = followed(Identity("c1", MEMBER_ID), store.state)
    store.run(LeaveMember(OTHER, forced=True))
    store.run(RemoveMember(OTHER))
    seen = followed(before, store.state)
    assert seen.removed == {OTHER: "old new"}
    assert followed(seen, store.state) == seen
    assert followed(Identity("c1", MEMBER_ID), store.state).removed == {OTHER: "old "}  # who came after that


def test_voters_of_a_later_state_are_known_beside_the_members_that_were() -> None:
    known = Identity(
        "c1", "a", peers={"a": Peer("1:1", "A"), "b": Peer("1:2", "B"), "c": Peer("1:3", "C")}, index=5
    )
    told = {"a": Peer("1:1", "A"), "b": Peer("1:5", "B2"), "d": Peer("1:3", "C")}
    assert introduced(known, Voters(4, told)) is known
    seen = introduced(known, Voters(6, told))
    assert (seen.peers, seen.index) == (told, 6)  # c has left and joined again, as d
    more = {"e": Peer("1:7", "E")}  # to whom a vote was given since
    assert introduced(seen, Voters(6, more)).peers == told | more


def test_an_address_that_was_told_to_the_stopped_member_counts_for_a_voter_as_well() -> None:
    known = Identity("c1", "a", peers={"b": Peer("new:1", "B")}, moved={"b": "new:1"})
    assert introduced(known, Voters(6, {"b": Peer("old:1", "B")})).peers == {"b": Peer("new:1", "B")}


class Host(Membership):
    """On which an address can be taken by somebody else."""

    def __init__(self, root: Path, store: LocalStore) -> None:
        contexts = SimpleNamespace(update=lambda *_: None)
        super().__init__(
            root, Identity("c1", MEMBER_ID), cast(Any, contexts), cast(Any, None), cast(Any, None)
        )
        introductions = Introductions(cast(Any, store))
        self.daemon = local_daemon(root, store, introductions=introductions, membership=self)
        self.taken: str | None = None
        self.listened: list[str] = []

    async def listen(self, address: str) -> None:
        if address == self.taken:
            raise Invalid(f"Cannot listen on {address}")
        self.listened.append(address)


def test_an_address_that_could_not_be_listened_at_is_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        store = clustered()
        store.run(ConfigureServer({}, MEMBER_ID, {"core.https_address": "10.0.0.1:9443"}))
        host = Host(tmp_path, store)
        host.taken = "10.0.0.1:9443"
        with pytest.raises(Invalid):
            await host.refresh()
        await host.open()  # at the start: it goes on without
        host.taken = None
        await host.refresh()
        await host.refresh()
        assert host.listened == ["10.0.0.1:9443"]

    asyncio.run(story())
