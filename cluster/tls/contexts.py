"""TLS contexts of the standard library, for every connection where the other end is known beforehand.

A pinned context fails the handshake itself when the server shows another certificate than the expected one:
no caller can forget to look. Over asyncio not even our own certificate has been sent by then.
"""

import hashlib
import hmac
import ssl
from collections.abc import Iterable, Mapping

from cluster.errors import Invalid, NotFound
from cluster.tls.certificates import KeyPair, fingerprint_of, pem_to_der, pem_to_ders

RAFT_PROTOCOL = "raft/1"  # ALPN; what the multiplexer of the one port looks for
HTTP_PROTOCOL = "http/1.1"
FINGERPRINT_DIGITS = 64


class WrongCertificate(ssl.SSLCertVerificationError):
    """The server is not the one that was pinned."""


def pinned_client(own: KeyPair | None, expected: str) -> ssl.SSLContext:
    """To a server known by its fingerprint (hex) or certificate (PEM); presents `own` when asked for one.

    Validity dates and host names play no part, as in LXD. Handshakes with any other server raise
    `WrongCertificate`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([HTTP_PROTOCOL])
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    pin = _pin(expected)

    def check(der: bytes | None) -> None:
        if der is None or not hmac.compare_digest(hashlib.sha256(der).digest(), pin):
            shown = "none" if der is None else fingerprint_of(der)
            raise WrongCertificate(1, f"The server's certificate is {shown}, not {pin.hex()} as expected")

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(True))

    class PinnedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert(True))

    context.sslobject_class = PinnedObject
    context.sslsocket_class = PinnedSocket
    return context


def issued_client(authority: str) -> ssl.SSLContext:
    """To servers whose certificates this authority (PEM) has signed for their names, and to no others."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be a root
    return context


def cluster_client(own: KeyPair, cluster_certificate: str) -> ssl.SSLContext:
    """To any member's API in the name of this member: all serve with the cluster's certificate (PEM, or its
    fingerprint).
    """
    return pinned_client(own, cluster_certificate)


def _pin(expected: str) -> bytes:
    if "BEGIN" in expected:
        return hashlib.sha256(pem_to_der(expected)).digest()
    digits = expected.strip().replace(":", "").lower()
    try:
        pin = bytes.fromhex(digits)
    except ValueError as error:
        raise Invalid(f"Not a certificate fingerprint: {expected!r}") from error
    if len(digits) != FINGERPRINT_DIGITS or len(pin) != hashlib.sha256().digest_size:
        raise Invalid(f"Not a SHA-256 certificate fingerprint: {expected!r}")
    return pin


def peer_server(own: KeyPair, members: Iterable[str]) -> ssl.SSLContext:
    """Accepts exactly the members whose certificates (PEM) are given, for Raft only."""
    return _peer(ssl.PROTOCOL_TLS_SERVER, own, members)


def peer_client(own: KeyPair, member: str) -> ssl.SSLContext:
    """To the one member whose certificates (PEM) are given, for Raft only."""
    return _peer(ssl.PROTOCOL_TLS_CLIENT, own, [member])


def _peer(protocol: int, own: KeyPair, trusted: Iterable[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is pinned; addresses may change
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a trusted leaf is enough, whoever issued it
    context.set_alpn_protocols([RAFT_PROTOCOL])
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = (
            0  # links are long-lived; and a resumed session would outlive a member's removal
        )
    context.load_cert_chain(own.certificate, own.key)
    for der in {der for pem in trusted for der in pem_to_ders(pem)}:
        context.load_verify_locations(cadata=der)
    return context


class Contexts:
    """The Raft port's contexts for the members as they are now.

    `update` may be called from one thread while others ask: it publishes a complete set by one assignment.
    Contexts are built at first use and kept until the members or this member's own certificate change.
    """

    def __init__(self, own: KeyPair) -> None:
        self._own = own
        self._view = _View(own, {}, {})

    def update(self, members: Mapping[str, str], removed: Mapping[str, str] | None = None) -> None:
        """Member id -> its certificates (PEM), this member's own included or not; Invalid on a PEM that is
        none.

        `removed`, likewise, were members: they get as far as being told so.
        """
        gone = removed or {}
        if (members, gone) != (self._view.members, self._view.removed):
            self._view = _View(self._own, dict(members), dict(gone))

    def reload(self) -> None:
        """This member's own key pair was replaced on disk: new links use the new one."""
        self._view = _View(self._own, self._view.members, self._view.removed)

    def server(self) -> ssl.SSLContext:
        return self._view.server()

    def client(self, member_id: str) -> ssl.SSLContext:
        """NotFound when there is no such member."""
        return self._view.client(member_id)

    def member_of(self, der: bytes | None) -> str | None:
        """Whose certificate it is; None for a stranger's and for none."""
        return None if der is None else self._view.ids.get(der)

    def was_removed(self, der: bytes, member_id: str) -> bool:
        """A server may have been removed and have joined again, as another member."""
        return (der, member_id) in self._view.gone


class _View:
    """One version of the membership."""

    def __init__(self, own: KeyPair, members: dict[str, str], removed: dict[str, str]) -> None:
        self.own = own
        self.members = members
        self.removed = removed
        self.ids = {der: member_id for member_id, pem in members.items() for der in pem_to_ders(pem)}
        self.gone = {(der, member_id) for member_id, pem in removed.items() for der in pem_to_ders(pem)}
        self._server: ssl.SSLContext | None = None
        self._clients: dict[str, ssl.SSLContext] = {}

    def server(self) -> ssl.SSLContext:
        if self._server is None:
            self._server = peer_server(self.own, [*self.members.values(), *self.removed.values()])
        return self._server

    def client(self, member_id: str) -> ssl.SSLContext:
        context = self._clients.get(member_id)
        if context is None:
            pem = self.members.get(member_id)
            if pem is None:
                raise NotFound(f"No such cluster member: {member_id}", member=member_id)
            context = self._clients[member_id] = peer_client(self.own, pem)
        return context
