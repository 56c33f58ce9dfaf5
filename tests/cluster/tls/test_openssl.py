"""The adapter against the standard library's client, in memory: no byte and no wake-up may be lost."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from OpenSSL import SSL

from cluster.errors import Invalid
from cluster.tls.certificates import KeyPair, ensure
from cluster.tls.openssl import Adapter, Connection
from tests.effort import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def server_keys(folder: Path) -> KeyPair:
    return ensure(folder, "server")


@pytest.fixture(scope="module")
def client_keys(folder: Path) -> KeyPair:
    return ensure(folder, "client")


@pytest.fixture(scope="module")
def adapter(server_keys: KeyPair) -> Adapter:
    return Adapter(server_keys)


def client_context(
    keys: KeyPair | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if keys is not None:
        context.load_cert_chain(keys.certificate, keys.key)
    return context


class Pair:
    """A client and a server whose bytes are carried by hand."""

    def __init__(
        self, adapter: Adapter, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        self.to_client, self.from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.to_server, self.from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.to_client, self.from_client, session=session)
        self.server: Connection = adapter.wrap_bio(self.to_server, self.from_server, server_side=True)

    def carry(self) -> None:
        self.to_server.write(self.from_client.read())
        self.to_client.write(self.from_server.read())

    def shake_hands(self) -> "Pair":
        open_ends: list[ssl.SSLObject | Connection] = [self.client, self.server]
        for _ in range(10):
            for end in list(open_ends):
                try:
                    end.do_handshake()
                    open_ends.remove(end)
                except ssl.SSLWantReadError:
                    pass
            self.carry()
            if not open_ends:
                assert self.server_reads() == b""  # as asyncio does next
                return self
        raise AssertionError("the handshake does not end")

    def server_reads(self) -> bytes:
        """As asyncio does: until the connection says that it wants more."""
        parts: list[bytes] = []
        while True:
            try:
                part = self.server.read(256 * 1024)
            except ssl.SSLWantReadError:
                return b"".join(parts)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def client_reads(self) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                parts.append(self.client.read(1 << 20))
            except ssl.SSLWantReadError:
                return b"".join(parts)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_a_stranger_s_certificate_is_accepted_and_shown(
    adapter: Adapter, client_keys: KeyPair, version: ssl.TLSVersion
) -> None:
    pair = Pair(adapter, client_context(client_keys, version)).shake_hands()
    assert pair.server.getpeercert(True) == client_keys.der()
    assert pair.server.getpeercert() == {}
    assert pair.server.version() == pair.client.version()
    cipher, shared = pair.server.cipher(), pair.client.cipher()
    assert cipher is not None
    assert shared is not None
    assert (cipher[0], cipher[2]) == (shared[0], shared[2])


@VERSIONS
def test_a_client_without_certificate_is_accepted(adapter: Adapter, version: ssl.TLSVersion) -> None:
    pair = Pair(adapter, client_context(None, version)).shake_hands()
    assert pair.server.getpeercert(True) is None
    assert pair.server.getpeercert() is None


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
def test_http_1_1_is_chosen_when_offered(adapter: Adapter, offered: list[str], chosen: str | None) -> None:
    context = client_context()
    if offered:
        context.set_alpn_protocols(offered)
    pair = Pair(adapter, context).shake_hands()
    assert pair.client.selected_alpn_protocol() == chosen
    assert pair.server.selected_alpn_protocol() == chosen


TURNS = 200  # slices of the wire; then comes the rest at once, as tiny ones would take a second


@VERSIONS
@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(st.integers(0, 40_000), max_size=6),
    slices=st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
)
def test_all_that_was_sent_is_read_however_it_arrives(
    adapter: Adapter, version: ssl.TLSVersion, messages: list[int], slices: list[int]
) -> None:
    pair = Pair(adapter, client_context(None, version)).shake_hands()
    pair.client_reads()  # session tickets
    sent = b""
    for number, size in enumerate(messages):
        message = bytes([number]) * size
        while message:
            written = pair.client.write(message)
            sent, message = sent + message[:written], message[written:]
    wire, received, turn = pair.from_client.read(), b"", 0
    while wire:
        width = slices[turn % len(slices)] if turn < TURNS else len(wire)
        pair.to_server.write(wire[:width])
        wire, turn = wire[width:], turn + 1
        received += pair.server_reads()
    assert received == sent


def test_single_bytes_on_the_wire_are_put_together(adapter: Adapter) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    for word in (b"hello", b"", b"world" * 100):
        pair.client.write(word)
        received = b""
        for byte in pair.from_client.read():
            pair.to_server.write(bytes([byte]))
            received += pair.server_reads()
        assert received == word


def test_a_small_buffer_gets_a_record_in_pieces(adapter: Adapter) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    pair.client.write(b"0123456789")
    pair.carry()
    buffer = bytearray(4)
    got = b""
    for _ in range(3):
        count = pair.server.read(4, buffer)
        got += buffer[:count]
    assert got == b"0123456789"
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(4, buffer)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([0, 1, 16_383, 16_384, 16_385, 262_144, 262_145, 700_000]), max_size=4))
def test_all_that_is_written_arrives(adapter: Adapter, sizes: list[int]) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    sent = b""
    for number, size in enumerate(sizes):
        data = bytes([number + 1]) * size
        assert pair.server.write(memoryview(data) if number % 2 else data) == size
        sent += data
    pair.carry()
    assert pair.client_reads() == sent


def test_the_client_s_goodbye_reads_as_the_end(adapter: Adapter) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    pair.client_reads()
    pair.client.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.carry()
    assert pair.server.read() == b"last words"
    assert pair.server.read() == b""
    pair.server.unwrap()
    pair.carry()
    pair.client.unwrap()


def test_saying_goodbye_first_waits_for_the_answer(adapter: Adapter) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.carry()
    assert pair.client.read() == b""
    pair.client.unwrap()
    pair.carry()
    pair.server.unwrap()


def test_a_connection_that_just_ends_is_no_goodbye(adapter: Adapter) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    pair.to_server.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        pair.server.read()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\xff\xff", bytes(100)])
def test_garbage_is_an_error_and_answered_by_an_alert(adapter: Adapter, garbage: bytes) -> None:
    pair = Pair(adapter, client_context()).shake_hands()
    pair.from_server.read()
    pair.to_server.write(garbage)
    with pytest.raises(ssl.SSLError) as caught:
        pair.server.read()
    assert not isinstance(caught.value, ssl.SSLWantReadError)
    assert pair.from_server.pending


def test_plain_http_fails_the_handshake(adapter: Adapter) -> None:
    to_server = ssl.MemoryBIO()
    server = adapter.wrap_bio(to_server, ssl.MemoryBIO(), server_side=True)
    to_server.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="http request"):
        server.do_handshake()


def raw_client(low: int, high: int) -> SSL.Connection:
    """OpenSSL's own, which can do what Python's cannot."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(low)
    context.set_max_proto_version(high)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    return client


def raw_step(client: SSL.Connection, to_server: ssl.MemoryBIO) -> None:
    """What the client does next, and its bytes on the way."""
    with suppress(SSL.WantReadError):
        client.do_handshake()
    with suppress(SSL.WantReadError):
        to_server.write(client.bio_read(65536))


def test_old_versions_are_refused(adapter: Adapter) -> None:
    client = raw_client(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION)
    to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = adapter.wrap_bio(to_server, from_server, server_side=True)
    raw_step(client, to_server)
    with pytest.raises(ssl.SSLError, match="protocol"):
        server.do_handshake()
    assert from_server.pending  # the alert that says so


def test_renegotiation_is_refused_at_once(adapter: Adapter) -> None:
    client = raw_client(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
    to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = adapter.wrap_bio(to_server, from_server, server_side=True)
    for _ in range(3):
        raw_step(client, to_server)
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        if from_server.pending:
            client.bio_write(from_server.read())
    client.renegotiate()
    raw_step(client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        server.read()
    client.bio_write(from_server.read())
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.do_handshake()


@VERSIONS
def test_a_resumed_session_still_has_its_certificate(
    adapter: Adapter, client_keys: KeyPair, version: ssl.TLSVersion
) -> None:
    context = client_context(client_keys, version)
    first = Pair(adapter, context).shake_hands()
    first.client_reads()
    again = Pair(adapter, context, session=first.client.session).shake_hands()
    assert again.client.session_reused
    assert again.server.getpeercert(True) == client_keys.der()


def test_the_certificate_can_be_replaced_while_connections_live(
    folder: Path, server_keys: KeyPair, client_keys: KeyPair
) -> None:
    adapter = Adapter(server_keys)
    old = Pair(adapter, client_context()).shake_hands()
    newer = ensure(folder, "newer")
    adapter.replace(newer)
    new = Pair(adapter, client_context()).shake_hands()
    assert old.client.getpeercert(True) == server_keys.der()
    assert new.client.getpeercert(True) == newer.der()
    old.client.write(b"still here")
    old.carry()
    assert old.server.read() == b"still here"


def test_a_pair_that_does_not_match_is_refused_and_the_old_one_stays(
    server_keys: KeyPair, client_keys: KeyPair
) -> None:
    adapter = Adapter(server_keys)
    with pytest.raises(Invalid, match="Cannot serve with this certificate"):
        adapter.replace(KeyPair(server_keys.certificate, client_keys.key))
    for certificate, key in ((server_keys.pem(), "no"), ("no", server_keys.key.read_text())):
        with pytest.raises(Invalid, match="Not a certificate and key"):
            adapter.replace_pem(certificate, key)
    assert Pair(adapter, client_context()).shake_hands().client.getpeercert(True) == server_keys.der()


def test_a_chain_is_sent_along(server_keys: KeyPair, client_keys: KeyPair) -> None:
    adapter = Adapter(server_keys)
    adapter.replace_pem(server_keys.pem() + client_keys.pem(), server_keys.key.read_text())
    client = raw_client(SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
    to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = adapter.wrap_bio(to_server, from_server, server_side=True)
    for _ in range(2):
        raw_step(client, to_server)
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        client.bio_write(from_server.read())
    assert len(client.get_peer_cert_chain() or []) == 2


def test_it_is_for_servers_only(adapter: Adapter) -> None:
    with pytest.raises(ValueError, match="servers"):
        adapter.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
