"""Who may follow the log anew, and that it has no vote by then."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import Unavailable
from cluster.membership.identity import Identity, Peer
from cluster.tls.certificates import fingerprint_of
from lxdpy.cli.cluster_rejoin import ask_any
from lxdpy.resources.cluster import rejoin
from lxdpy.resources.cluster.model import Accepted
from tests.lxdpy.rest.members import Members, members

PATH = "/internal/1.0/cluster/rejoin"


def run(test: Callable[[Members], Awaitable[None]], folder: Path) -> None:
    """The second member asks the first, which leads."""

    async def within() -> None:
        async with members(folder, [rejoin.routes]) as made:
            leader: Any = made.all[0].store
            leader.cluster_id = "after"
            leader.voters = frozenset(fake.store.member_id for fake in made.all)

            async def remove_voter(member: str) -> None:
                leader.voters -= {member}

            leader.remove_voter = remove_voter
            leader.links = frozenset()
            await test(made)

    asyncio.run(within())


def test_a_member_that_is_away_loses_its_vote_and_is_told_what_it_needs(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        status, answer = await made.ask(0, "POST", PATH, own=made.all[1].keys)
        assert status == 200
        accepted = msgspec.convert(answer["metadata"], Accepted)
        assert (accepted.cluster_id, accepted.voters) == ("after", [made.all[0].store.member_id])
        assert accepted.certificate == made.pinned
        assert accepted.members[made.all[1].store.member_id].certificate == made.all[1].keys.pem()

    run(test, tmp_path)


def test_a_member_that_runs_keeps_its_vote(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        leader = made.all[0].store
        leader.links = frozenset({made.all[1].store.member_id})
        status, answer = await made.ask(0, "POST", PATH, own=made.all[1].keys)
        assert (status, answer["error"]) == (409, "Member n2 runs: stop it first")
        assert len(leader.voters) == 2

    run(test, tmp_path)


def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        status, answer = await made.ask(0, "POST", PATH, own=made.client)
        assert (status, answer["metadata"]) == (403, None)
        assert len(made.all[0].store.voters) == 2

    run(test, tmp_path)


def test_a_cluster_whose_certificate_was_replaced_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        leader, away = made.all
        for kind in ("crt", "key"):
            shutil.copy(tmp_path / f"n2.{kind}", tmp_path / f"server.{kind}")
        peers = {leader.store.member_id: Peer(f"127.0.0.1:{leader.port}", leader.keys.pem())}
        before = Identity("c1", away.store.member_id, peers=peers, certificate=made.client.pem())
        with pytest.raises(Unavailable, match="as expected"):
            await ask_any(tmp_path, before, None, before.certificate)
        assert len(leader.store.voters) == 2
        answer = await ask_any(tmp_path, before, None, fingerprint_of(made.pinned))
        assert answer.cluster_id == "after"

    run(test, tmp_path)
