"""Raft commands of the trust store."""

from cluster.errors import AlreadyExists
from cluster.membership.commands import use_token
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import Txn
from lxdpy.resources.certificates.model import CERTIFICATES, Certificate


class TrustCertificate(Command, frozen=True, tag="certificate.trust"):
    """Add a certificate; with `secret_hash` by spending a token, whose restrictions it then has."""

    certificate: Certificate
    secret_hash: str = ""

    def apply(self, txn: Txn) -> None:
        new = self.certificate
        if txn.find(CERTIFICATES, new.fingerprint) is not None:
            raise AlreadyExists("Certificate already in trust store", fingerprint=new.fingerprint)
        if self.secret_hash:
            token = use_token(txn, "client", self.secret_hash)
            new = Certificate(
                new.fingerprint, new.certificate, token.name, "client", token.restricted, token.projects
            )
        txn.insert(CERTIFICATES, new.fingerprint, new)


class UpdateCertificate(Command, frozen=True, tag="certificate.update"):
    """Replace the row; a new certificate moves it to a new fingerprint."""

    fingerprint: str
    certificate: Certificate
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(CERTIFICATES, self.fingerprint)
        check_etag(self.etag, etag_of(before))
        if self.certificate.fingerprint != self.fingerprint:
            txn.insert(CERTIFICATES, self.certificate.fingerprint, self.certificate)
            txn.delete(CERTIFICATES, self.fingerprint)
        else:
            txn.put(CERTIFICATES, self.fingerprint, self.certificate)


class DistrustCertificate(Command, frozen=True, tag="certificate.distrust"):
    fingerprint: str

    def apply(self, txn: Txn) -> None:
        txn.delete(CERTIFICATES, self.fingerprint)


COMMANDS: tuple[type[Command], ...] = (TrustCertificate, UpdateCertificate, DistrustCertificate)
