"""Real handshakes on loopback: who gets through to whom."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest

from cluster.errors import Invalid, NotFound
from cluster.tls.certificates import KeyPair, ensure
from cluster.tls.contexts import Contexts, WrongCertificate, cluster_client, pinned_client
from cluster.tls.openssl import Adapter

A, B = "a" * 12, "b" * 12


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KeyPair]:
    folder: Path = tmp_path_factory.mktemp("keys")
    return {name: ensure(folder, name) for name in ("a", "b", "stranger", "server")}


async def visit(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, bytes]:
    """What certificate the server saw, and what it read; raises what the client met."""
    seen: asyncio.Future[tuple[bytes | None, bytes]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert(True)
        try:
            seen.set_result((shown, await reader.read(100)))
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listening, asyncio.timeout(10):
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(b"hello")
        try:
            if await reader.read(1) == b"" and not seen.done():
                raise ConnectionResetError("refused")
        finally:
            writer.close()
        return await seen


def anyone(keys: KeyPair) -> ssl.SSLContext:
    return cast(ssl.SSLContext, Adapter(keys))


def test_a_pinned_server_is_reached_and_shown_our_certificate(keys: dict[str, KeyPair]) -> None:
    server, own = keys["server"], keys["a"]
    for expected in (server.fingerprint(), server.fingerprint().upper(), server.pem()):
        context = pinned_client(own, expected)
        assert asyncio.run(visit(anyone(server), context)) == (own.der(), b"hello")


def test_a_pinned_client_may_have_no_certificate(keys: dict[str, KeyPair]) -> None:
    server = keys["server"]
    context = pinned_client(None, server.fingerprint())
    assert asyncio.run(visit(anyone(server), context)) == (None, b"hello")


def test_another_server_than_the_pinned_one_gets_nothing(keys: dict[str, KeyPair]) -> None:
    """Neither a request nor our certificate: the handshake itself does not end."""

    async def scenario() -> None:
        got: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.put_nowait(await reader.read(100))
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=anyone(keys["stranger"]))
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            context = pinned_client(keys["a"], keys["server"].pem())
            with pytest.raises(WrongCertificate, match=keys["stranger"].fingerprint()):
                await asyncio.open_connection("127.0.0.1", port, ssl=context)
            context = pinned_client(None, keys["stranger"].pem())
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"the second")
            assert await got.get() == b"the second"  # there was no first
            writer.close()

    asyncio.run(scenario())


def test_a_blocking_socket_is_pinned_too(keys: dict[str, KeyPair]) -> None:
    async def scenario() -> None:
        listening = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=anyone(keys["stranger"])
        )
        port = listening.sockets[0].getsockname()[1]
        context = pinned_client(None, keys["server"].fingerprint())

        def connect() -> None:
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                context.wrap_socket(plain)

        async with listening:
            with pytest.raises(WrongCertificate):
                await asyncio.to_thread(connect)

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", "abc", "00" * 20, "zz" * 32, "-----BEGIN CERTIFICATE-----"])
def test_what_cannot_be_pinned_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        pinned_client(None, text)


def test_any_member_is_reached_by_the_cluster_s_certificate(keys: dict[str, KeyPair]) -> None:
    context = cluster_client(keys["a"], keys["server"].pem())
    assert asyncio.run(visit(anyone(keys["server"]), context)) == (keys["a"].der(), b"hello")


def members(keys: dict[str, KeyPair], **ids: str) -> dict[str, str]:
    return {member_id: keys[name].pem() for name, member_id in ids.items()}


def contexts_of(keys: dict[str, KeyPair], name: str, **ids: str) -> Contexts:
    contexts = Contexts(keys[name])
    contexts.update(members(keys, **ids))
    return contexts


def test_members_reach_each_other_and_know_who_it_is(keys: dict[str, KeyPair]) -> None:
    a, b = contexts_of(keys, "a", a=A, b=B), contexts_of(keys, "b", a=A, b=B)
    shown, said = asyncio.run(visit(b.server(), a.client(B)))
    assert said == b"hello"
    assert b.member_of(shown) == A


def test_a_stranger_does_not_get_through_to_a_member(keys: dict[str, KeyPair]) -> None:
    b, stranger = contexts_of(keys, "b", a=A, b=B), contexts_of(keys, "stranger", b=B)
    with pytest.raises(OSError, match=r"(?i)certificate|reset|refused|unknown ca"):
        asyncio.run(visit(b.server(), stranger.client(B)))
    assert b.member_of(keys["stranger"].der()) is None
    assert b.member_of(None) is None


def test_a_client_without_certificate_does_not_get_through(keys: dict[str, KeyPair]) -> None:
    b = contexts_of(keys, "b", a=A, b=B)
    with pytest.raises(OSError, match=r"(?i)certificate|reset|refused"):
        asyncio.run(visit(b.server(), pinned_client(None, keys["b"].pem())))


def test_a_member_that_poses_as_another_is_refused(keys: dict[str, KeyPair]) -> None:
    a, b = contexts_of(keys, "a", a=A, b=B), contexts_of(keys, "b", a=A, b=B)
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(visit(a.server(), b.client(B)))


def test_a_removed_member_is_refused_and_unknown(keys: dict[str, KeyPair]) -> None:
    a, b = contexts_of(keys, "a", a=A, b=B), contexts_of(keys, "b", a=A, b=B)
    b.update(members(keys, b=B))
    with pytest.raises(OSError, match=r"(?i)certificate|reset|refused|unknown ca"):
        asyncio.run(visit(b.server(), a.client(B)))
    assert b.member_of(keys["a"].der()) is None
    with pytest.raises(NotFound, match=A):
        b.client(A)


def test_a_removed_member_is_known_to_have_been_one(keys: dict[str, KeyPair]) -> None:
    a, b = contexts_of(keys, "a", a=A, b=B), contexts_of(keys, "b", a=A, b=B)
    b.update(members(keys, b=B), removed={A: keys["a"].pem()})
    shown, said = asyncio.run(visit(b.server(), a.client(B)))
    assert said == b"hello"
    assert shown is not None
    assert (b.member_of(shown), b.was_removed(shown, A)) == (None, True)
    assert not b.was_removed(shown, "another")
    assert not b.was_removed(keys["b"].der(), B)
    b.update(members(keys, b=B), removed={A: keys["server"].pem() + keys["a"].pem()})
    assert asyncio.run(visit(b.server(), a.client(B))) == (shown, b"hello")
    assert b.was_removed(shown, A)


def test_contexts_are_kept_until_the_members_change(keys: dict[str, KeyPair]) -> None:
    contexts = contexts_of(keys, "a", a=A, b=B)
    server, client = contexts.server(), contexts.client(B)
    contexts.update(members(keys, a=A, b=B))
    assert contexts.server() is server
    assert contexts.client(B) is client
    contexts.update(members(keys, a=A))
    assert contexts.server() is not server


def test_a_new_own_certificate_is_used_after_reload(keys: dict[str, KeyPair], tmp_path: Path) -> None:
    own = ensure(tmp_path, "own")
    contexts = Contexts(own)
    contexts.update(members(keys, b=B))
    before = contexts.client(B)
    contexts.reload()
    assert contexts.client(B) is not before


def test_without_members_nobody_gets_through(keys: dict[str, KeyPair]) -> None:
    alone, a = Contexts(keys["b"]), contexts_of(keys, "a", b=B)
    with pytest.raises(OSError, match=r"(?i)certificate|reset|refused|unknown ca"):
        asyncio.run(visit(alone.server(), a.client(B)))


def test_a_member_may_have_two_certificates(keys: dict[str, KeyPair]) -> None:
    both = {A: keys["a"].pem() + keys["stranger"].pem(), B: keys["b"].pem()}
    b = Contexts(keys["b"])
    b.update(both)
    for name in ("a", "stranger"):
        now = contexts_of(keys, name, a=A, b=B)
        shown, _ = asyncio.run(visit(b.server(), now.client(B)))
        assert b.member_of(shown) == A
        shown, _ = asyncio.run(visit(now.server(), b.client(A)))
