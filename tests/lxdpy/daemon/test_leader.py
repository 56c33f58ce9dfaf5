"""What a leader does at each look, with a fake of Raft that says how it was asked."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cluster.errors import Unavailable
from cluster.membership.commands import CreateToken
from cluster.membership.heartbeat import Verdict
from cluster.membership.model import MEMBERS, REMOVED, TOKENS, Member, Token
from lxdpy.daemon.fence import surely_over
from lxdpy.daemon.leader import JOIN_WITHIN, Leader
from lxdpy.resources.cluster.commands import LeaveMember
from lxdpy.resources.instances.commands import SetInstanceStatus
from lxdpy.resources.instances.model import IDMAPS, IdmapSlot
from lxdpy.resources.server.commands import ConfigureServer
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.cluster.scene import clustered
from tests.lxdpy.resources.gpus.scene import add, created, gpu

replace = msgspec.structs.replace


class Raft(LocalStore):
    """One whose voters can be changed; `deaf` cannot become one."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = clustered().machine
        self.asked: list[str] = []
        self.learners: frozenset[str] = frozenset()
        self.deaf = ""
        self.leads = True

    @property
    def is_leader(self) -> bool:
        return self.leads

    def on_leader(self, callback: object) -> None:
        pass

    def set_learners(self, members: Collection[str]) -> None:
        self.learners = frozenset(members)

    async def add_voter(self, member: str, timeout: float) -> None:
        if member == self.deaf:
            raise Unavailable(f"{member} is not ready")
        self.asked.append(f"add {member}")
        self.voters |= {member}

    async def remove_voter(self, member: str, timeout: float) -> None:
        self.asked.append(f"remove {member}")
        self.voters -= {member}

    async def transfer(self, timeout: float) -> None:
        self.asked.append("transfer")
        self.leads = False


class Heard:
    """Who is silent, and for how long; the others are online."""

    def __init__(self) -> None:
        self.silent: dict[str, float] = {}

    def verdict(self, member: str) -> Verdict:
        return Verdict(member not in self.silent, self.silent.get(member, 0.0))

    def online(self, member: str) -> bool:
        return self.verdict(member).online


class Scene:
    """n1 leads; n2 to n5 are there. Ids are their names, but for n1's."""

    def __init__(self, root: Path) -> None:
        self.raft, self.heard = Raft(), Heard()
        for id in list(self.raft.state.rows(MEMBERS)):
            if id != MEMBER_ID:
                self.raft.put(MEMBERS, id, None)
        for number in range(2, 6):
            row = Member(
                f"n{number}", f"n{number}", certificate=f"PEM {number}", status="ready", joined_at=number
            )
            self.raft.put(MEMBERS, row.id, row)
        self.daemon = local_daemon(root, self.raft, beat=self.heard, membership=SimpleNamespace())
        self.now = 1000.0
        self.leader = Leader(self.daemon, lambda: self.now)

    async def settle(self, looks: int = 12) -> list[str]:
        """What was asked of Raft in so many looks."""
        self.raft.asked.clear()
        for _ in range(looks):
            await self.leader.step()
        return list(self.raft.asked)

    def change(self, member: str, **fields: object) -> None:
        row = self.raft.state.get(MEMBERS, member)
        self.raft.put(MEMBERS, member, replace(row, **cast(Any, fields)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def run(root: Path, check: Any) -> None:
    async def main() -> None:
        await check(Scene(root))

    asyncio.run(main())


def test_the_oldest_get_votes_one_by_one_and_everybody_the_log(root: Path) -> None:
    async def check(scene: Scene) -> None:
        assert await scene.settle(1) == ["add n2"]
        assert await scene.settle() == ["add n3"]
        assert scene.raft.learners == {MEMBER_ID, "n2", "n3", "n4", "n5"}
        scene.raft.run(ConfigureServer({"cluster.max_voters": "5"}))
        assert await scene.settle() == ["add n4", "add n5"]
        scene.raft.run(ConfigureServer({"cluster.max_voters": "3"}))
        assert len(await scene.settle()) == 2
        assert MEMBER_ID in scene.raft.voters

    run(root, check)


def test_a_silent_voter_is_replaced_after_half_the_threshold_first_the_new_one_comes(root: Path) -> None:
    async def check(scene: Scene) -> None:
        await scene.settle()
        scene.heard.silent["n3"] = 9.9
        assert await scene.settle() == []
        scene.heard.silent["n3"] = 10.1
        assert await scene.settle() == ["add n4", "remove n3"]
        scene.heard.silent.clear()
        assert await scene.settle() == []
        scene.raft.run(ConfigureServer({"cluster.offline_threshold": "60"}))
        scene.heard.silent["n2"] = 29.0
        assert await scene.settle() == []

    run(root, check)


def test_who_does_not_lead_does_nothing(root: Path) -> None:
    async def check(scene: Scene) -> None:
        scene.raft.leads = False
        assert await scene.settle() == []

    run(root, check)


def test_a_leaving_member_loses_its_vote_and_then_is_removed(root: Path) -> None:
    async def check(scene: Scene) -> None:
        await scene.settle()
        scene.raft.run(LeaveMember("n2"))
        assert await scene.settle() == ["add n4", "remove n2"]
        assert "n2" not in scene.raft.state.rows(MEMBERS)
        assert scene.raft.state.get(REMOVED, "n2").certificate == "PEM 2"

    run(root, check)


def test_a_vote_that_cannot_be_given_keeps_nobody_else_waiting(root: Path) -> None:
    async def check(scene: Scene) -> None:
        await scene.settle()
        scene.raft.deaf = "n4"
        scene.heard.silent["n3"] = 30.0
        scene.raft.run(LeaveMember("n5"))
        await scene.settle()
        assert "n5" not in scene.raft.state.rows(MEMBERS)
        assert "n3" in scene.raft.voters

    run(root, check)


def test_a_leaving_leader_gives_its_vote_on_then_the_lead_and_is_not_removed_by_itself(root: Path) -> None:
    async def check(scene: Scene) -> None:
        await scene.settle()
        scene.raft.run(LeaveMember(MEMBER_ID))
        assert await scene.settle() == ["add n4", "transfer"]
        assert MEMBER_ID in scene.raft.state.rows(MEMBERS)

    run(root, check)


def test_a_joining_member_may_be_silent_for_a_while_only(root: Path) -> None:
    async def check(scene: Scene) -> None:
        scene.change("n5", status="joining")
        scene.heard.silent["n5"] = JOIN_WITHIN - 1
        await scene.settle()
        assert scene.raft.state.get(MEMBERS, "n5").status == "joining"
        scene.heard.silent["n5"] = JOIN_WITHIN + 1
        await scene.settle()
        assert "n5" not in scene.raft.state.rows(MEMBERS)

    run(root, check)


def test_expired_tokens_go(root: Path) -> None:
    async def check(scene: Scene) -> None:
        scene.raft.run(CreateToken(Token("t1", "member", "n9", "", 0.0, expires_at=1.0)))
        scene.raft.run(CreateToken(Token("t2", "member", "n8", "", 0.0)))
        await scene.settle(1)
        assert list(scene.raft.state.rows(TOKENS)) == ["t2"]

    run(root, check)


def test_a_member_that_is_cut_off_and_has_gpus_in_use_is_removed_once_it_has_ended_that(root: Path) -> None:
    async def check(scene: Scene) -> None:
        scene.raft.run(ConfigureServer({"gpu.fence_after": "60"}))
        add(scene.raft, gpu("GPU-1", "n5"))
        created(scene.raft, "c1", "GPU-1", status="Running", started=True, location="n5")
        scene.raft.put(IDMAPS, "0", IdmapSlot("default/c1"))
        over = surely_over(60.0)
        scene.heard.silent["n5"] = 3 * over  # others say so: the leader has only just been elected
        await scene.daemon.store.propose(LeaveMember("n5", forced=True))
        await scene.settle()
        assert "n5" in scene.raft.state.rows(MEMBERS)
        scene.now += over + 1
        scene.heard.silent["n5"] = over - 1
        await scene.settle()
        assert "n5" in scene.raft.state.rows(MEMBERS)
        scene.heard.silent["n5"] = over + 1
        await scene.settle()
        assert "n5" not in scene.raft.state.rows(MEMBERS)

    run(root, check)


@pytest.mark.parametrize("what", ["no lease", "no gpus"])
def test_a_member_with_nothing_to_end_is_removed_at_once(root: Path, what: str) -> None:
    async def check(scene: Scene) -> None:
        scene.raft.run(ConfigureServer({} if what == "no lease" else {"gpu.fence_after": "60"}))
        add(scene.raft, gpu("GPU-1", "n5"))
        if what != "no gpus":
            created(scene.raft, "c1", "GPU-1", status="Running", started=True, location="n5")
            scene.raft.put(IDMAPS, "0", IdmapSlot("default/c1"))
        scene.heard.silent["n5"] = 5.0
        await scene.daemon.store.propose(LeaveMember("n5", forced=True))
        await scene.settle()
        assert "n5" not in scene.raft.state.rows(MEMBERS)

    run(root, check)


def test_a_member_that_hears_of_its_removal_is_removed_when_it_has_said_what_ended(root: Path) -> None:
    async def check(scene: Scene) -> None:
        scene.raft.run(ConfigureServer({"gpu.fence_after": "60"}))
        add(scene.raft, gpu("GPU-1", "n5"))
        created(scene.raft, "c1", "GPU-1", status="Running", started=True, location="n5")
        scene.raft.put(IDMAPS, "0", IdmapSlot("default/c1"))
        await scene.daemon.store.propose(LeaveMember("n5", forced=True))
        scene.now += 10 * surely_over(60.0)
        await scene.settle()
        assert "n5" in scene.raft.state.rows(MEMBERS)
        scene.raft.run(SetInstanceStatus("default/c1", "n5", "Stopped"))
        await scene.settle()
        assert "n5" not in scene.raft.state.rows(MEMBERS)

    run(root, check)


def test_who_leaves_loses_its_vote_before_any_other(root: Path) -> None:
    """With three voters, two of them well: the one that is cut off at this moment must not be needed."""

    async def check(scene: Scene) -> None:
        for number in (4, 5):
            scene.raft.put(MEMBERS, f"n{number}", None)
        await scene.settle()
        assert scene.raft.voters == {MEMBER_ID, "n2", "n3"}
        await scene.daemon.store.propose(LeaveMember("n3", forced=True))
        assert (await scene.settle())[0] == "remove n3"

    run(root, check)
