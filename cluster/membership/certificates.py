"""PURE: the certificates of the cluster and of its members, and the raft commands that replace them.

A member's own certificate is replaced in three steps, so that it is trusted at every moment: it is announced,
and from then on both are the member's; the member shows the new one once all others have said that they trust
it; and then the old one is dropped, by the log and so everywhere.
"""

import msgspec

from cluster.errors import AlreadyExists, Conflict, Invalid
from cluster.membership.model import CLUSTER, MEMBERS, THE_CLUSTER, Member, is_clustered, the_cluster
from cluster.state.command import Command
from cluster.state.txn import Txn

replace = msgspec.structs.replace


class ReplaceClusterCertificate(Command, frozen=True, tag="cluster.certificate"):
    """What all listeners show from now on. Members that are down learn of it from the log."""

    certificate: str
    certificate_key: str

    def apply(self, txn: Txn) -> None:
        if not is_clustered(txn):
            raise Invalid("This server is not clustered")
        new = replace(the_cluster(txn), certificate=self.certificate, certificate_key=self.certificate_key)
        txn.put(CLUSTER, THE_CLUSTER, new)


class AnnounceCertificate(Command, frozen=True, tag="member.certificate.announce"):
    """What a member will show; "" takes an announcement back."""

    member: str
    certificate: str
    fingerprint: str

    def apply(self, txn: Txn) -> None:
        for other in txn.rows(MEMBERS).values():
            if self.fingerprint and self.fingerprint in fingerprints_of(other) and other.id != self.member:
                raise AlreadyExists("A member with this certificate exists", fingerprint=self.fingerprint)
        row = txn.get(MEMBERS, self.member)
        new = replace(row, next_certificate=self.certificate, next_fingerprint=self.fingerprint)
        txn.put(MEMBERS, row.id, new)


class AdoptCertificate(Command, frozen=True, tag="member.certificate.adopt"):
    """A member shows the announced certificate: the one before is nobody's from here on."""

    member: str
    fingerprint: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        if row.fingerprint == self.fingerprint:
            return
        if row.next_fingerprint != self.fingerprint:
            raise Conflict(f"Member {row.name} announced another certificate", fingerprint=self.fingerprint)
        new = replace(
            row,
            certificate=row.next_certificate,
            fingerprint=row.next_fingerprint,
            next_certificate="",
            next_fingerprint="",
        )
        txn.put(MEMBERS, row.id, new)


def pem_of(member: Member) -> str:
    """All certificates that are the member's, one after the other."""
    return member.certificate + member.next_certificate


def fingerprints_of(member: Member) -> frozenset[str]:
    return frozenset({member.fingerprint, member.next_fingerprint} - {""})


COMMANDS: tuple[type[Command], ...] = (ReplaceClusterCertificate, AnnounceCertificate, AdoptCertificate)
