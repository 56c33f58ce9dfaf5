"""Links between stores: gossip, news, changed addresses, removed members."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid
from cluster.tls.certificates import ensure
from tests.cluster.raft.group import Member, group, note_cast, others, run
from tests.cluster.raft.toy import Raise
from tests.patience import eventually

# Links


def test_gossip_reaches_all_members_or_one(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            await eventually(lambda: all(len(store.links) == 2 for store in made.stores))
            heard: dict[str, list[tuple[str, dict[str, Any]]]] = {name: [] for name in "abc"}
            for name in "abc":
                made[name].on_cast(partial(note_cast, heard[name]))
            for number in range(10):
                made["a"].cast({"number": number})
            made["b"].cast({"only": "c"}, to="c")
            await eventually(lambda: len(heard["c"]) == 11 and len(heard["b"]) == 10)
            assert heard["b"] == [("a", {"number": number}) for number in range(10)]
            assert ("b", {"only": "c"}) in heard["c"]
            assert heard["a"] == []
            with pytest.raises(Invalid, match="no gossip"):
                made["a"].cast({"x": "y" * (300 << 10)})
            with pytest.raises(TypeError):
                made["a"].cast({"x": object()})

    run(test, tmp_path)


def test_links_are_told_up_and_down(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            await eventually(lambda: made["a"].links == {"b"})
            news: list[tuple[str, bool]] = []
            made["a"].on_link(lambda member, up: news.append((member, up)))
            await made["b"].stop()
            await eventually(lambda: ("b", False) in news)
            assert made["a"].links == frozenset()

    run(test, tmp_path)


def test_a_member_that_changed_its_address_is_found_again(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            await made["b"].stop()
            member = Member(folder, "b", made.addresses)
            old, made.members["b"] = made.members["b"], member
            store = await member.start("a", fresh=False)
            made["a"].addresses_changed()
            await eventually(lambda: store.links == {"a"} and made["a"].links == {"b"})
            await store.propose(Raise("k"))
            await old.close()

    run(test, tmp_path)


def test_a_dropped_member_is_let_in_no_more(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            leader = await made.leader()
            gone = others(made, leader)[0]
            await leader.remove_voter(gone.member_id)
            made.members[leader.member_id].contexts.update(
                {leader.member_id: made.members[leader.member_id].contexts._own.pem()}
            )
            removed = made.members.pop(gone.member_id)
            leader.drop(gone.member_id)
            await eventually(lambda: not leader.links and not gone.links)
            await asyncio.sleep(0.3)
            assert not leader.links
            assert not gone.links
            await leader.propose(Raise("k"))
            await removed.close()

    run(test, tmp_path)


def test_a_removed_member_is_told_by_whoever_it_dials(tmp_path: Path) -> None:
    """Be it still running, or away at its removal: its state, log and keys are what they were."""

    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            leader = await made.leader()
            gone = others(made, leader)[0].member_id
            await leader.remove_voter(gone)
            removed, here = made.members.pop(gone), made.members[leader.member_id]
            assert removed.dismissals == []
            own = {leader.member_id: here.contexts._own.pem()}
            here.contexts.update(own, {gone: removed.contexts._own.pem()})
            leader.drop(gone)
            await eventually(lambda: removed.dismissals == [leader.member_id])
            assert not leader.links
            await removed.close()
            back = Member(folder, gone, lambda: made.addresses() | {gone: removed.address})
            await back.start("a", fresh=False)
            await eventually(lambda: back.dismissals)
            assert not back.store.links
            assert here.failures == back.failures == []
            await leader.propose(Raise("k"))
            await back.close()

    run(test, tmp_path)


def test_a_link_ends_with_the_certificate_it_was_made_with(tmp_path: Path) -> None:
    """As in a renewal: both are trusted, the member shows the new one, the old one goes."""

    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            await made.leader()
            renewed = made.members["b"]
            new = ensure(folder / "new", "b")
            both = {name: member.contexts._own.pem() for name, member in made.members.items()}
            for member in made.members.values():
                member.contexts.update(both | {"b": both["b"] + new.pem()})
                member.store.addresses_changed()
            await asyncio.sleep(0.2)
            assert all(len(member.store.links) == 2 for member in made.members.values()), "none has to end"
            renewed.contexts._own = new
            renewed.contexts.reload()
            downs: list[str] = []
            made["a"].on_link(lambda member, up: downs.append(member) if not up else None)
            for member in made.members.values():
                member.contexts.update(both | {"b": new.pem()})
                member.store.addresses_changed()
            await eventually(lambda: downs == ["b"])
            await eventually(lambda: all(len(member.store.links) == 2 for member in made.members.values()))
            await made["a"].propose(Raise("k"))

    run(test, tmp_path)
