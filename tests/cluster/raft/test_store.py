"""Stores over TLS on loopback: what the rest of the program relies on."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from cluster.errors import Conflict, Error, Invalid, Unavailable, Uncertain
from cluster.failpoints import inject
from cluster.raft import asking
from cluster.raft.frames import Damaged
from cluster.raft.store import Applied
from tests.cluster.raft.group import Member, group, note_key, others, run
from tests.cluster.raft.toy import COUNTERS, Raise, Refuse, value, values
from tests.patience import WITHIN, eventually

# One member


def test_a_group_of_one_takes_proposals_as_soon_as_it_is_started(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            store = made["a"]
            assert store.is_leader
            assert store.leader == store.member_id == "a"
            state = await store.propose(Raise("k"), timeout=WITHIN)
            assert value(state, "k") == 1
            assert value(store.state, "k") == 1
            assert value(await store.read_index(), "k") == 1

    run(test, tmp_path)


def test_a_refusal_is_raised_with_its_kind_and_facts(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            with pytest.raises(Conflict, match="never") as refusal:
                await made["a"].propose(Refuse())
            assert refusal.value.facts == {"counter": "all"}

    run(test, tmp_path)


def test_a_command_that_does_not_fit_into_the_log_is_invalid(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            with pytest.raises(Invalid, match="bytes"):
                await made["a"].propose(Raise("k", "x" * (1 << 20)))
            await made["a"].propose(Raise("k", "x" * (880 << 10)))

    run(test, tmp_path)


def test_watchers_hear_each_change_once_and_in_order(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            heard: list[Applied] = []
            unsubscribe = made["a"].watch(heard.append)
            await asyncio.gather(*(made["a"].propose(Raise(f"k{number}")) for number in range(50)))
            assert len(heard) == 50
            assert [len(one.state.rows(COUNTERS)) for one in heard] == list(range(1, 51))
            assert all(len(one.changes) == 1 and one.proposed_at > 1e9 for one in heard)
            unsubscribe()
            await made["a"].propose(Raise("more"))
            assert len(heard) == 50

    run(test, tmp_path)


def test_a_request_id_is_applied_once(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            for _ in range(3):
                await made["a"].propose(Raise("k"), request_id="same")
            assert value(made["a"].state, "k") == 1

    run(test, tmp_path)


def test_the_state_is_there_after_a_restart_and_is_not_told_again(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            await made["a"].propose(Raise("k"))
            member = made.members["a"]
            await member.store.stop()
            await member.store.stop()
            with pytest.raises(Unavailable, match="stopping"):
                await member.store.propose(Raise("k"))
            heard: list[Applied] = []
            restarted = await member.start("a", fresh=False)
            restarted.watch(heard.append)
            assert value(restarted.state, "k") == 1
            await restarted.propose(Raise("k"))
            assert [value(one.state, "k") for one in heard] == [2]

    run(test, tmp_path)


def test_a_store_that_cannot_start_says_why(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        member = Member(folder, "a", dict)
        with pytest.raises(Damaged, match="the log is gone"):
            await member.start("a", fresh=False)
        await member.close()

    run(test, tmp_path)


def test_a_member_that_cannot_write_stops_and_says_so(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            store, failures = made["a"], made.members["a"].failures
            with inject("journal.sync", OSError(5, "Input/output error")):
                with pytest.raises(Uncertain):
                    await store.propose(Raise("k"), timeout=3)
                await eventually(lambda: failures)
            assert "Input/output error" in failures[0]
            with pytest.raises(Error):
                await store.propose(Raise("k"), timeout=0.3)
            assert value(store.state, "k") == 0

    run(test, tmp_path)


def test_waiting_for_an_index_that_does_not_come_ends(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            with pytest.raises(Unavailable, match="behind"):
                await made["a"].wait_index(10**6, timeout=0.05)
            waiting = asyncio.ensure_future(made["a"].wait_index(10**6))
            await asyncio.sleep(0)
            await made["a"].stop()
            with pytest.raises(Unavailable, match="stopping"):
                await waiting

    run(test, tmp_path)


# Several members


def test_all_members_propose_read_and_agree(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            leader = await made.leader()
            heard: dict[str, list[str]] = {name: [] for name in "abc"}
            for store in made.stores:
                keys = heard[store.member_id]
                store.watch(partial(note_key, keys))
            proposals = [
                store.propose(Raise(f"{store.member_id}{number}"))
                for number in range(20)
                for store in made.stores
            ]
            for state in await asyncio.gather(*proposals):
                assert values(state)
            for store in made.stores:
                assert len(values(await store.read_index())) == 60
            assert heard["a"] == heard["b"] == heard["c"]
            with pytest.raises(Conflict, match="never"):
                await others(made, leader)[0].propose(Refuse())
            assert all(store.leader == leader.member_id for store in made.stores)
            assert leader.voters == set("abc")

    run(test, tmp_path)


def test_what_was_proposed_is_in_the_state_that_is_returned(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            for store in made.stores:
                for number in range(5):
                    key = f"{store.member_id}{number}"
                    assert value(await store.propose(Raise(key)), key) == 1
                    for other in made.stores:
                        assert value(await other.read_index(), key) == 1

    run(test, tmp_path)


def test_a_leader_that_stops_hands_over_first(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            leader = await made.leader()
            await leader.propose(Raise("before"))
            news: list[str | None] = []
            rest = others(made, leader)
            rest[0].on_leader(news.append)
            await leader.stop()
            assert any(store._raft is not None and store._raft.node.is_leader for store in rest)
            state = await rest[0].propose(Raise("after"), timeout=WITHIN)
            assert values(state) == {"before": 1, "after": 1}
            assert news[-1] in {store.member_id for store in rest}

    run(test, tmp_path)


def test_proposals_go_on_over_the_end_of_a_leader_and_are_done_once(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            leader = await made.leader()
            rest = others(made, leader)
            async with asyncio.TaskGroup() as tasks:
                for number in range(30):
                    tasks.create_task(rest[number % 2].propose(Raise(f"k{number}"), timeout=WITHIN))
                assert leader._session is not None
                tasks.create_task(leader._session.stop())  # without handing over
            state = await rest[1].read_index(timeout=WITHIN)
            assert values(state) == {f"k{number}": 1 for number in range(30)}

    run(test, tmp_path)


def test_without_a_majority_nothing_is_done_and_nothing_is_read(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            leader = await made.leader()
            assert leader._raft is not None
            conf = leader._raft.node._core._SyncObj__conf
            usual, conf.leaderFallbackTimeout = conf.leaderFallbackTimeout, 10 * WITHIN
            await made.members[others(made, leader)[0].member_id].store.stop()
            with pytest.raises(Uncertain):
                await leader.propose(Raise("k"), timeout=0.4)
            with pytest.raises(Unavailable):
                await leader.read_index(timeout=0.4)
            assert leader.is_leader
            conf.leaderFallbackTimeout = usual
            await eventually(lambda: not leader.is_leader)
            with pytest.raises(Unavailable):
                await leader.propose(Raise("k2"), timeout=0.2)
            assert values(leader.state) == {}

    run(test, tmp_path)


def test_a_minority_is_told_so_before_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CUT_OFF", 0.2)

    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            leader = await made.leader()
            await made.members[others(made, leader)[0].member_id].store.stop()
            await eventually(lambda: not leader.is_leader)
            with pytest.raises(Unavailable, match="cut off"):
                await leader.propose(Raise("k"), timeout=60)
            with pytest.raises(Unavailable, match="cut off"):
                await leader.read_index(timeout=60)

    run(test, tmp_path)


def test_a_member_that_was_away_catches_up(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            leader = await made.leader()
            away = made.members[others(made, leader)[0].member_id]
            await away.store.stop()
            for number in range(10):
                await leader.propose(Raise(f"k{number}"))
            store = await away.start("a", fresh=False)
            store.addresses_changed()
            await eventually(lambda: len(values(store.state)) == 10)

    run(test, tmp_path)


def test_a_learner_far_behind_gets_a_snapshot_and_may_vote_then(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "a") as made:
            founder = made["a"]
            raft = founder._raft
            assert raft is not None
            raft.node.journal.trailing = 1
            for ten in range(30):
                keys = [f"k{ten}{one}" for one in range(10)]
                await asyncio.gather(*(founder.propose(Raise(key, "x" * 2000)) for key in keys))
            raft.post(raft.node._core.forceLogCompaction)
            await eventually(lambda: raft.node.journal.first > 2)
            member = Member(folder, "b", made.addresses)
            made.members["b"] = member
            store = await member.start("a")
            heard: list[Applied] = []
            store.watch(heard.append)
            founder.addresses_changed()
            founder.set_learners(["b"])
            await eventually(lambda: len(values(store.state)) == 300)
            await eventually(lambda: heard)
            assert heard[0].snapshot
            assert len(heard[0].changes) == 300
            await founder.add_voter("b")
            await founder.add_voter("b")
            await founder.propose(Raise("after"))
            await eventually(lambda: store.voters == {"a", "b"})
            await founder.remove_voter("b")
            await founder.remove_voter("b")
            with pytest.raises(Conflict):
                await founder.remove_voter("a")
            assert founder.voters == {"a"}

    run(test, tmp_path)


def test_only_the_leader_changes_voters(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "ab") as made:
            leader = await made.leader()
            with pytest.raises(Unavailable, match="leader"):
                await others(made, leader)[0].add_voter("z")
            with pytest.raises(Unavailable, match="not ready"):
                await leader.add_voter("z", timeout=0.2)

    run(test, tmp_path)


def test_leadership_goes_where_it_is_sent(tmp_path: Path) -> None:
    async def test(folder: Path) -> None:
        async with group(folder, "abc") as made:
            leader = await made.leader()
            target = others(made, leader)[1]
            await eventually(lambda: target.member_id in leader.links and len(leader.links) == 2)
            await leader.transfer(target.member_id)
            await eventually(lambda: target.is_leader)
            await leader.propose(Raise("k"))
            with pytest.raises(Invalid, match="not a voter"):
                await target.transfer("z")

    run(test, tmp_path)
