"""A member's certificate is announced, shown, adopted; and at every step it is clear whose each one is."""

from cluster.membership.certificates import (
    COMMANDS,
    AdoptCertificate,
    AnnounceCertificate,
    ReplaceClusterCertificate,
    fingerprints_of,
    pem_of,
)
from cluster.membership.commands import COMMANDS as MEMBERS_OWN
from cluster.membership.commands import EnableCluster, FoundCluster
from cluster.membership.model import MEMBERS, TABLES, Cluster, Member, the_cluster
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine


class Run:
    def __init__(self) -> None:
        self.machine = Machine(TABLES, [*MEMBERS_OWN, *COMMANDS])
        self.tell(FoundCluster(Cluster("c"), Member("a", "none", certificate="one\n", fingerprint="f1")))

    def tell(self, command: Command) -> str:
        index = self.machine.state.index + 1
        entry = entry_of(command, request_id=str(index), proposer="a", proposed_at=1.0)
        error = self.machine.apply(index, entry).error
        return error.message if error else ""

    @property
    def row(self) -> Member:
        return self.machine.state.get(MEMBERS, "a")


def test_both_are_the_member_s_until_the_old_one_goes() -> None:
    run = Run()
    assert run.tell(AnnounceCertificate("a", "two\n", "f2")) == ""
    assert pem_of(run.row) == "one\ntwo\n"
    assert fingerprints_of(run.row) == {"f1", "f2"}
    assert run.tell(AdoptCertificate("a", "f2")) == ""
    assert pem_of(run.row) == "two\n"
    assert fingerprints_of(run.row) == {"f2"}
    assert run.tell(AdoptCertificate("a", "f2")) == "", "again, after a crash"


def test_an_announcement_can_be_changed_and_taken_back() -> None:
    run = Run()
    run.tell(AnnounceCertificate("a", "two\n", "f2"))
    run.tell(AnnounceCertificate("a", "three\n", "f3"))
    assert "announced another certificate" in run.tell(AdoptCertificate("a", "f2"))
    run.tell(AnnounceCertificate("a", "", ""))
    assert fingerprints_of(run.row) == {"f1"}


def test_two_members_cannot_have_one_certificate() -> None:
    run = Run()
    other = Member("b", "n2", certificate="other\n", fingerprint="f9")
    rows = {**run.machine.state.rows(MEMBERS), "b": other}
    run.machine.state = type(run.machine.state)(5, {**run.machine.state.tables, MEMBERS.name: rows})
    assert "A member with this certificate exists" in run.tell(AnnounceCertificate("a", "other\n", "f9"))
    assert run.tell(AnnounceCertificate("b", "", "")) == ""


def test_the_cluster_s_is_replaced_where_there_is_a_cluster() -> None:
    run = Run()
    assert run.tell(ReplaceClusterCertificate("pem", "key")) == "This server is not clustered"
    run.tell(EnableCluster("a", "n1", "h:1", "old", "old key"))
    assert run.tell(ReplaceClusterCertificate("pem", "key")) == ""
    cluster = the_cluster(run.machine.state)
    assert (cluster.certificate, cluster.certificate_key, cluster.enabled) == ("pem", "key", True)
