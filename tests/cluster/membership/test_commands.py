"""What a cluster agrees on about its members, whoever asks for it and in whatever order."""

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.errors import Error
from cluster.membership.commands import (
    COMMANDS,
    REMEMBERED,
    CreateToken,
    EnableCluster,
    EvacuateMember,
    ExpireTokens,
    FoundCluster,
    JoinMember,
    ReadyMember,
    RenameMember,
    ReportInventory,
    RestoreMember,
    RevokeToken,
    SetMemberAddress,
    UpdateMember,
    check_name,
    leave,
    remove,
)
from cluster.membership.model import (
    ALONE,
    INVENTORIES,
    MEMBERS,
    REMOVED,
    TABLES,
    TOKENS,
    Cluster,
    Inventory,
    Member,
    Token,
    is_clustered,
    member_named,
    the_cluster,
)
from cluster.membership.tokens import hash_of
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine
from cluster.state.txn import Txn
from tests.effort import examples


class Leave(Command, frozen=True, tag="test.leave"):
    member: str

    def apply(self, txn: Txn) -> None:
        leave(txn, self.member)


class Remove(Command, frozen=True, tag="test.remove"):
    member: str

    def apply(self, txn: Txn) -> None:
        remove(txn, self.member)


class Run:
    """A machine to which commands are told one after the other, at `now` (seconds)."""

    def __init__(self, *, clustered: bool = True) -> None:
        self.machine = Machine(TABLES, [*COMMANDS, Leave, Remove])
        self.now = 100.0
        self.tell(FoundCluster(Cluster("c"), Member("a", ALONE, certificate="A", fingerprint="a")))
        if clustered:
            self.tell(EnableCluster("a", "n1", "n1:1", "cert", "key"))

    def tell(self, command: Command) -> str:
        """Why it was refused, "" if it was not."""
        index = self.machine.state.index + 1
        entry = entry_of(command, request_id=str(index), proposer="a", proposed_at=self.now)
        error = self.machine.apply(index, entry).error
        return error.message if error else ""

    def token(self, name: str, secret: str = "", **known: float) -> str:
        token = Token(f"op-{name}-{secret}", "member", name, hash_of(secret or name), self.now, **known)  # type: ignore[arg-type]
        return self.tell(CreateToken(token))

    def join(self, name: str, secret: str = "", **known: str) -> str:
        row = Member(name, name, f"{name}:1", certificate=name.upper(), fingerprint=name)
        return self.tell(JoinMember(hash_of(secret or name), msgspec.structs.replace(row, **known)))

    def joined(self, name: str) -> None:
        for said in (self.token(name), self.join(name), self.tell(ReadyMember(name))):
            assert said == ""

    def status(self, member: str) -> str:
        return self.machine.state.get(MEMBERS, member).status

    @property
    def tokens(self) -> list[str]:
        return sorted(self.machine.state.rows(TOKENS))


def test_a_cluster_is_founded_once_and_enabled_once() -> None:
    run = Run(clustered=False)
    assert not is_clustered(run.machine.state)
    run.tell(FoundCluster(Cluster("other"), Member("b", "n2")))
    assert (the_cluster(run.machine.state).id, [*run.machine.state.rows(MEMBERS)]) == ("c", ["a"])
    assert "Invalid member name" in run.tell(EnableCluster("a", ALONE, "n1:1", "", ""))
    assert run.tell(EnableCluster("a", "n1", "n1:1", "cert", "key")) == ""
    assert run.status("a") == "ready"
    assert "already clustered" in run.tell(EnableCluster("a", "n1", "n1:1", "", ""))


def test_a_token_is_spent_by_whom_it_is_for_and_only_once() -> None:
    run = Run()
    run.token("n2")
    assert "No such token" in run.join("n2", secret="guessed")
    assert "is for 'n2', not for 'n3'" in run.join("n3", secret="n2")
    assert run.join("n2") == ""
    assert (run.status("n2"), run.tokens) == ("joining", [])
    assert "was used" in run.join("n9", secret="n2")


def test_a_refused_join_does_not_spend_the_token() -> None:
    run = Run()
    run.joined("n2")
    run.token("n3")
    assert "with this id exists" in run.join("n3", id="n2")
    assert "with this address exists" in run.join("n3", address="n2:1")
    assert "with this certificate exists" in run.join("n3", fingerprint="n2")
    assert run.join("n3") == ""


def test_tokens_end_by_time_by_hand_and_by_a_newer_one() -> None:
    run = Run()
    run.token("n2", expires_at=200.0)
    run.token("n3", secret="old")
    run.token("n3", secret="new")
    assert run.tokens == ["op-n2-", "op-n3-new"]
    assert "No such token" in run.join("n3", secret="old")
    run.now = 200.0
    assert "expired" in run.join("n2")
    run.tell(ExpireTokens())
    assert run.tokens == ["op-n3-new"]
    assert run.tell(RevokeToken("op-n3-new")) == ""
    assert "not found" in run.tell(RevokeToken("op-n3-new"))


def test_who_failed_to_join_makes_place_for_the_next_token() -> None:
    run = Run()
    run.token("n2")
    run.join("n2", id="first")
    assert run.token("n2", secret="again") == ""
    assert run.status("first") == "leaving"
    assert run.join("n2", secret="again", id="second", address="n2:2", fingerprint="f2") == ""
    assert member_named(run.machine.state, "n2").id == "second"
    run.tell(ReadyMember("second"))
    assert "already has a member with name: n2" in run.token("n2")


def test_a_member_in_service_is_not_made_ready_again() -> None:
    run = Run()
    run.joined("n2")
    run.tell(EvacuateMember("n2"))
    run.tell(ReadyMember("n2"))
    assert run.status("n2") == "evacuated"
    run.tell(RestoreMember("n2"))
    run.tell(RestoreMember("n2"))
    assert run.status("n2") == "ready"
    run.token("n3")
    run.join("n3")
    for command in (EvacuateMember("n3"), RestoreMember("n3")):
        assert "pending" in run.tell(command)


def test_names_are_unique_and_could_be_host_names() -> None:
    run = Run()
    run.joined("n2")
    assert "already has a member" in run.tell(RenameMember("n2", "n1"))
    assert run.tell(RenameMember("n2", "n2")) == ""
    assert run.tell(RenameMember("n2", "web-1.lab")) == ""
    for name in ("", "none", "-a", "a-", "a_b", "a b", "ä", "x" * 64):
        with pytest.raises(Error, match="Invalid member name"):
            check_name(name)


def test_what_operators_and_hosts_say_of_a_member_is_kept() -> None:
    run = Run()
    assert "not found" in run.tell(UpdateMember("a", "", "", {}, ("rack",)))
    run.tell(UpdateMember("a", "first", "", {"user.x": "1"}, (), ("event-hub",)))
    run.tell(ReportInventory(Inventory("a", "x86_64", 4, 1 << 30)))
    run.tell(SetMemberAddress("a", "n1:9"))
    row = run.machine.state.get(MEMBERS, "a")
    assert (row.description, row.failure_domain, row.groups) == ("first", "default", ())
    assert (row.architecture, row.address, row.roles) == ("x86_64", "n1:9", ("event-hub",))
    assert "not found" in run.tell(ReportInventory(Inventory("gone", "x86_64", 4, 1)))


def test_removed_members_leave_a_note_and_no_more_than_so_many() -> None:
    run = Run()
    for number in range(REMEMBERED + 3):
        run.now += 1
        run.joined(f"m{number}")
        run.tell(ReportInventory(Inventory(f"m{number}", "x86_64", 4, 1)))
        assert "not leaving" in run.tell(Remove(f"m{number}"))
        assert run.tell(Leave(f"m{number}")) == ""
        assert run.tell(Remove(f"m{number}")) == ""
    state = run.machine.state
    assert [*state.rows(MEMBERS)] == ["a"]
    assert not state.rows(INVENTORIES)
    assert set(state.rows(REMOVED)) == {f"m{number}" for number in range(3, REMEMBERED + 3)}
    run.token("back")
    run.join("back", certificate="M9")
    assert "m9" not in run.machine.state.rows(REMOVED), "it is a member again, under another id"


NAMES = st.sampled_from(["n1", "n2", "n3"])
IDS = st.sampled_from(["a", "b", "c", "d"])


class Membership(RuleBasedStateMachine):
    """Whatever is asked for in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Run()

    @rule(name=NAMES)
    def mint(self, name: str) -> None:
        self.run.now += 1
        self.run.token(name, expires_at=self.run.now + 5)

    @rule(name=NAMES, id=IDS)
    def join(self, name: str, id: str) -> None:
        self.run.join(name, id=id, address=f"{id}:1", fingerprint=id)

    @rule(member=IDS, to=NAMES)
    def rename(self, member: str, to: str) -> None:
        self.run.tell(RenameMember(member, to))

    @rule(member=IDS, command=st.sampled_from([ReadyMember, EvacuateMember, RestoreMember, Leave, Remove]))
    def tell(self, member: str, command: type[ReadyMember]) -> None:
        self.run.tell(command(member))

    @invariant()
    def somebody_is_left_to_serve(self) -> None:
        rows = self.run.machine.state.rows(MEMBERS).values()
        assert any(row.status in ("ready", "evacuated") for row in rows)

    @invariant()
    def nobody_is_mistaken_for_another(self) -> None:
        rows = [*self.run.machine.state.rows(MEMBERS).values()]
        for field in ("name", "address", "fingerprint"):
            assert len({getattr(row, field) for row in rows}) == len(rows), field

    @invariant()
    def there_is_one_token_a_name(self) -> None:
        names = [row.name for row in self.run.machine.state.rows(TOKENS).values()]
        assert len(set(names)) == len(names)


TestMembership = Membership.TestCase
TestMembership.settings = examples(40, stateful_step_count=25)
