"""The cluster's feature level: that of its oldest member, and never lower than it was."""

import pytest

from cluster.errors import Conflict, Error
from cluster.membership.commands import COMMANDS, CreateToken, FoundCluster, JoinMember
from cluster.membership.features import COMMANDS as LEVELS
from cluster.membership.features import RaiseLevel, UpdateVersion, common, level_of, outdated
from cluster.membership.model import TABLES, Cluster, Member, Token, members
from cluster.membership.tokens import hash_of
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine


class Run:
    """A machine to which commands are told one after the other."""

    def __init__(self) -> None:
        self.machine = Machine(TABLES, [*COMMANDS, *LEVELS], features=9, level=level_of)
        self.tell(FoundCluster(Cluster("c", features=2), Member("a", "n1", address="h:1", features=2)))

    def tell(self, command: Command) -> str:
        index = self.machine.state.index + 1
        entry = entry_of(command, request_id=str(index), proposer="a", proposed_at=1.0)
        error = self.machine.apply(index, entry).error
        return error.message if error else ""

    def join(self, name: str, features: int) -> str:
        self.tell(CreateToken(Token(name, "member", name, hash_of(name), 0.0)))
        row = Member(name, name, address=f"{name}:1", fingerprint=name, features=features)
        return self.tell(JoinMember(hash_of(name), row))

    @property
    def level(self) -> int:
        return level_of(self.machine.state)


def test_the_founder_s_level_is_the_cluster_s() -> None:
    assert Run().level == 2


def test_an_older_server_cannot_join_a_newer_can() -> None:
    run = Run()
    assert "it has feature level 1, the cluster 2" in run.join("n2", 1)
    assert run.join("n3", 3) == ""
    assert run.level == 2


def test_the_level_rises_when_the_last_member_was_updated_and_not_before() -> None:
    run = Run()
    run.join("n2", 3)
    assert common(members(run.machine.state)) == 2
    assert "Member n1 has feature level 2" in run.tell(RaiseLevel(3))
    assert run.level == 2
    run.tell(UpdateVersion("a", 4, "6.0"))
    assert common(members(run.machine.state)) == 3
    assert run.tell(RaiseLevel(3)) == ""
    assert run.level == 3


def test_the_level_never_sinks() -> None:
    run = Run()
    run.tell(RaiseLevel(1))
    assert run.level == 2


def test_who_has_fewer_features_than_another_is_outdated() -> None:
    run = Run()
    run.join("n2", 3)
    assert {row.name: outdated(row, members(run.machine.state)) for row in members(run.machine.state)} == {
        "n1": True, "n2": False,
    }  # fmt: skip


def test_the_proposer_is_refused_what_the_cluster_does_not_know() -> None:
    class Newer(Command, frozen=True, tag="x.newer"):
        since = 3

    with pytest.raises(Error, match="needs feature level 3") as refused:
        Run().machine.admit(Newer())
    assert not isinstance(refused.value, Conflict)
