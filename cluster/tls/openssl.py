"""A server-side TLS context for asyncio that asks for a client certificate and accepts any.

The standard library either verifies a client's certificate or does not ask for one; LXD's clients are
known by the fingerprint of a certificate nobody signed. asyncio needs of a context only `wrap_bio`, and of
what that returns the methods of `ssl.SSLObject`: `Adapter` and `Connection` give both over pyOpenSSL.

Where the time goes: asyncio owns two `ssl.MemoryBIO`, pyOpenSSL has two of its own, so each byte is copied
twice more than by the standard library; each call into pyOpenSSL costs about a microsecond, each exception
two or three. So bytes move in large pieces, and OpenSSL is asked only when it can have an answer.
"""

import ssl
from collections.abc import Callable
from typing import Any, Literal, overload

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL, crypto

from cluster.errors import Invalid
from cluster.tls.certificates import KeyPair

HEADER = 5  # bytes: type, version, version, length, length
RECORD = 16 * 1024  # bytes; the most plaintext a TLS record holds, so the most one read can return
PIECE = 256 * 1024  # bytes encrypted before they are moved on: bounds pyOpenSSL's buffer, which never shrinks
OVERHEAD = 16 * 1024  # bytes; more than the headers of a PIECE's records, and than a flight of the handshake
HANDSHAKE = 32 * 1024  # bytes taken at once of what OpenSSL wants to send on its own
PROTOCOLS = (b"http/1.1",)
SESSION_CONTEXT = (
    b"lxdpy-api"  # without one, OpenSSL refuses to resume sessions that had a client certificate
)

# pyOpenSSL sets this mode and has no name for it. With it a write ends after one record, and asyncio copies
# the rest of its buffer each time: 1 MiB at once would be copied 64 times over.
SSL_MODE_ENABLE_PARTIAL_WRITE = 0x1


class Adapter:
    """Stands where asyncio wants a server's `ssl.SSLContext`; hand it over with `typing.cast`."""

    def __init__(self, own: KeyPair) -> None:
        self.replace(own)

    def replace(self, own: KeyPair) -> None:
        """Serve new connections with another certificate; living ones are not touched.

        Invalid, and the old certificate stays, when the pair cannot be used.
        """
        self.replace_pem(own.certificate.read_text(), own.key.read_text())

    def replace_pem(self, certificate: str, key: str) -> None:
        """As `replace`, from texts; certificates after the first are sent along as its chain."""
        self._context = _context(certificate, key)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: None = None,
    ) -> "Connection":
        if not server_side:
            raise ValueError("This context is for servers")
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return Connection(connection, incoming, outgoing, self)


def _context(certificate: str, key: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.clear_mode(SSL_MODE_ENABLE_PARTIAL_WRITE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(SESSION_CONTEXT)
    context.set_verify(SSL.VERIFY_PEER, _accept_any)
    context.set_alpn_select_callback(_select_protocol)
    try:
        first, *chain = x509.load_pem_x509_certificates(certificate.encode())
        context.use_certificate(first)
        for issuer in chain:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(_private(key))
        context.check_privatekey()
    except SSL.Error as error:
        raise Invalid(f"Cannot serve with this certificate: {_reason(error)}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"Not a certificate and key in PEM form: {error}") from error
    return context


def _private(key: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    loaded = serialization.load_pem_private_key(key.encode(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise UnsupportedAlgorithm("only elliptic curve, RSA and Ed25519 keys can serve")
    return loaded


def _accept_any(connection: object, certificate: object, code: int, depth: int, verdict: int) -> bool:
    """Anybody may knock: who it is, and what he may do, is decided request by request."""
    return True


def _select_protocol(connection: object, offered: list[bytes]) -> Any:
    return next((name for name in PROTOCOLS if name in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


class _Records:
    """How many records OpenSSL was fed, to know without asking that it has no more to give.

    Asking costs two exceptions, and asyncio asks after every request. The count is never too low: each read
    that ends a record takes one off it, and it starts again only when OpenSSL itself says it is hungry.
    """

    def __init__(self) -> None:
        self.whole = 0  # complete records that OpenSSL may not have looked at yet
        self.torn = False  # the last record is not complete
        self._missing = 0  # bytes of it to come
        self._head = b""  # its header, when even that is not complete

    def waiting(self) -> bool:
        return self.torn or self.whole > 0

    def add(self, data: bytes) -> None:
        if self._head:
            data = self._head + data
        at, size = self._missing, len(data)
        if 0 < at <= size:
            self.whole += 1
        while at + HEADER <= size:
            at += HEADER + (data[at + 3] << 8 | data[at + 4])
            if at <= size:
                self.whole += 1
        self._missing = max(at - size, 0)
        self._head = data[at:]
        self.torn = at != size


class Connection:
    """One TLS connection; behaves as `ssl.SSLObject` does, errors included."""

    def __init__(
        self, connection: SSL.Connection, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, context: Adapter
    ) -> None:
        self.context = context
        self.server_side = True
        self.server_hostname: str | None = None
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._records = _Records()
        self._certificate: bytes | None = None

    def do_handshake(self) -> None:
        self._run(self._connection.do_handshake)
        certificate = self._connection.get_peer_certificate()
        if certificate is not None:
            self._certificate = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    @overload
    def read(self, size: int = ..., buffer: None = ...) -> bytes: ...
    @overload
    def read(self, size: int, buffer: bytearray | memoryview) -> int: ...
    def read(self, size: int = RECORD, buffer: bytearray | memoryview | None = None) -> bytes | int:
        """At most one record's worth; nothing after the other end said goodbye."""
        self._feed()
        if not self._records.waiting():
            raise ssl.SSLWantReadError  # what OpenSSL would say, at a tenth of the time
        wanted = min(size, RECORD)
        try:
            data = self._connection.recv(wanted)
        except SSL.ZeroReturnError:
            data = b""
        except SSL.Error as error:
            self._records.whole = 0
            self._flush()
            raise _translated(error) from None
        if len(data) < wanted or not self._connection.pending():
            self._records.whole -= 1
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def _feed(self) -> None:
        if self._incoming.pending:
            data = self._incoming.read()
            self._connection.bio_write(data)
            self._records.add(data)
        elif self._incoming.eof:
            self._connection.bio_shutdown()
            self._records.torn = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Takes all of it, as memory is never full."""
        size = len(data)
        if size <= PIECE:
            self._encrypt(data, size)
            return size
        view = memoryview(data)
        for start in range(0, size, PIECE):
            piece = view[start : start + PIECE]
            self._encrypt(piece, len(piece))
        return size

    def _encrypt(self, data: bytes | bytearray | memoryview, size: int) -> None:
        if not size:
            return  # OpenSSL takes a write of nothing for an error
        try:
            self._connection.sendall(data)
        except SSL.Error as error:
            self._flush()
            raise _translated(error) from None
        # More than can be there, so one call takes all of it.
        self._outgoing.write(self._connection.bio_read(size + OVERHEAD))

    def unwrap(self) -> None:
        """Say goodbye; SSLWantReadError until the other end has answered."""
        self._run(self._shut_down)

    def _shut_down(self) -> None:
        if not self._connection.shutdown() and not self._connection.shutdown():
            raise SSL.WantReadError

    def _run(self, step: Callable[[], object]) -> None:
        self._feed()
        try:
            step()
        except SSL.Error as error:
            raise _translated(error) from None
        finally:
            self._flush()

    def _flush(self) -> None:
        """Pass on what OpenSSL wants to send: handshake, alerts, key updates."""
        try:
            while True:
                data = self._connection.bio_read(HANDSHAKE)
                self._outgoing.write(data)
                if len(data) < HANDSHAKE:
                    return
        except SSL.WantReadError:
            return

    def pending(self) -> int:
        return self._connection.pending()

    @overload
    def getpeercert(self, binary_form: Literal[False] = ...) -> dict[str, Any] | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...
    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """DER, or None when there is none. Parsed, an unverified certificate is empty, as in `ssl`."""
        if binary_form or self._certificate is None:
            return self._certificate
        return {}

    def cipher(self) -> tuple[str, str, int] | None:
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_cipher_version() or "", self._connection.get_cipher_bits() or 0

    def version(self) -> str | None:
        name = self._connection.get_protocol_version_name()
        return None if name == "Unknown" else name

    def compression(self) -> None:
        return None

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode() or None


def _translated(error: SSL.Error) -> ssl.SSLError:
    """The standard library's error of the same meaning: what asyncio's state machine goes by."""
    if isinstance(error, SSL.WantReadError):
        return ssl.SSLWantReadError()
    if isinstance(error, SSL.WantWriteError):
        return ssl.SSLWantWriteError()
    if isinstance(error, SSL.ZeroReturnError):
        return ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS connection has been closed (EOF)")
    if isinstance(error, SSL.SysCallError):
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "The other end left in the middle of a TLS connection")
    return ssl.SSLError(ssl.SSL_ERROR_SSL, _reason(error))


def _reason(error: SSL.Error) -> str:
    """pyOpenSSL carries OpenSSL's error queue: (library, function, reason) each."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[-1] for entry in queue if entry[-1]) or "TLS failed"
