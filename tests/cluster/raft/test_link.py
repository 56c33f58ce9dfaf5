"""Who is let in on a Raft link, and what happens to those who are not."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.raft import carrier
from cluster.raft.carrier import FIRST_PAUSE
from cluster.raft.link import LENGTH, MAX_HELLO, Frames, Malformed, Outgoing, frame
from cluster.raft.messages import Cast, Dismissed, Hello, TimeoutNow, Vote, Welcome, decode
from cluster.tls.contexts import Contexts
from tests.cluster.raft.group import CLUSTER, Group, Member, group, keys
from tests.cluster.raft.toy import Raise, value
from tests.patience import WITHIN, eventually


def attack(folder: Path, strike: Callable[[Group], Any]) -> None:
    """Run against a group of one; afterwards it still works."""

    async def bounded() -> None:
        async with asyncio.timeout(2 * WITHIN), group(folder, "a") as made:
            await strike(made)
            assert value(await made["a"].propose(Raise("k")), "k") == 1
            assert made["a"].links == frozenset()
            assert made.members["a"].failures == []

    asyncio.run(bounded())


async def dialled(made: Group, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    contexts = Contexts(keys(name))
    contexts.update({"a": keys("a").pem()})
    host, port = made.members["a"].address.split(":")
    return await asyncio.open_connection(host, int(port), ssl=contexts.client("a"))


async def says(made: Group, data: bytes, name: str = "b") -> bytes:
    """What comes back before the connection is closed by the member."""
    reader, writer = await dialled(made, name)
    writer.write(data)
    try:
        async with asyncio.timeout(WITHIN):
            return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.transport.abort()


HELLO = frame(Hello(CLUSTER, "a", "b"))


def test_a_member_is_welcomed(tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        reader, writer = await dialled(made, "b")
        writer.write(HELLO)
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        assert decode(await reader.readexactly(length)) == Welcome()
        heard: list[tuple[str, dict[str, Any]]] = []
        made["a"].on_cast(lambda member, body: heard.append((member, body)))
        writer.write(frame(Cast(body={"x": 1})))
        await eventually(lambda: heard == [("b", {"x": 1})])
        writer.transport.abort()

    attack(tmp_path, strike)


@pytest.mark.parametrize(
    "greeting",
    [
        frame(Hello("another", "a", "b")),
        frame(Hello(CLUSTER, "b", "b")),
        frame(Hello(CLUSTER, "a", "c")),
        frame(Vote(term=9)),
        frame(TimeoutNow(term=9)),
        LENGTH.pack(2 << 30) + b"x",
        LENGTH.pack(MAX_HELLO + 1) + b"x" * MAX_HELLO,
        b"GET / HTTP/1.1\r\n\r\n",
        LENGTH.pack(4) + b"\xc1\xc1\xc1\xc1",
        LENGTH.pack(16) + b"\x80\x04cos\nsystem\n(S'",
        LENGTH.pack(0),
    ],
)
def test_a_wrong_greeting_closes_the_connection(greeting: bytes, tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        assert await says(made, greeting) == b""

    attack(tmp_path, strike)


@pytest.mark.parametrize(
    "garbage",
    [
        LENGTH.pack(4) + b"\xc1\xc1\xc1\xc1",
        LENGTH.pack(5 << 20) + b"x",
        LENGTH.pack(3) + b"\x92\x06\xa1",
        LENGTH.pack(3) + b"\x92\xcc\xff",
    ],
)
def test_garbage_after_the_greeting_closes_the_connection(garbage: bytes, tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        assert await says(made, HELLO + garbage) == frame(Welcome())

    attack(tmp_path, strike)


def test_who_was_removed_is_told_so_and_nothing_else(tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        made.members["a"].contexts.update({"a": keys("a").pem()}, {"b": keys("b").pem()})
        heard: list[Any] = []
        made["a"].on_cast(lambda *cast: heard.append(cast))
        assert await says(made, HELLO + frame(Cast(body={"x": 1}))) == frame(Dismissed())
        assert await says(made, frame(Vote(term=9))) == b""
        assert await says(made, frame(Hello("another", "a", "b"))) == b""
        assert await says(made, frame(Hello(CLUSTER, "a", "b2"))) == b""  # as which it has joined again
        assert heard == []

    attack(tmp_path, strike)


def test_a_stranger_is_not_heard_at_all(tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        assert await says(made, HELLO, "stranger") == b""

    attack(tmp_path, strike)


def test_without_a_certificate_nobody_is_heard(tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, port = made.members["a"].address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(HELLO)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()

    attack(tmp_path, strike)


def test_without_tls_nobody_is_heard(tmp_path: Path) -> None:
    async def strike(made: Group) -> None:
        host, port = made.members["a"].address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HELLO)
        assert await reader.read() == b""
        writer.transport.abort()

    attack(tmp_path, strike)


def test_who_it_is_the_certificate_says(tmp_path: Path) -> None:
    """A member cannot speak for another."""

    async def strike(made: Group) -> None:
        heard: list[str] = []
        made["a"].on_cast(lambda member, _: heard.append(member))
        cast = frame(Cast(body={"from": "b"}))
        assert await says(made, HELLO + cast, "c") == b""
        _, writer = await dialled(made, "c")
        writer.write(frame(Hello(CLUSTER, "a", "c")) + cast)
        await eventually(lambda: heard == ["c"])
        writer.transport.abort()

    attack(tmp_path, strike)


def test_no_link_to_who_has_not_the_expected_certificate(tmp_path: Path) -> None:
    async def test() -> None:
        made = Group(tmp_path)
        await made.add("a", "a")
        impostor = Member(tmp_path, "b", dict, key_name="c")
        made.members["b"] = impostor
        await impostor.start("a")
        made["a"].addresses_changed()
        await asyncio.sleep(0.5)
        assert made["a"].links == frozenset()
        for member in made.members.values():
            await member.close()

    asyncio.run(test())


def test_no_link_to_another_member_than_was_dialled_even_if_tls_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        made = Group(tmp_path)
        await made.add("a", "a")
        contexts = made.members["a"].contexts
        trusting_c = contexts.client("c")
        monkeypatch.setattr(contexts, "client", lambda _: trusting_c)
        other = Member(tmp_path, "b", dict, key_name="c")
        made.members["b"] = other
        await other.start("a")
        made["a"].addresses_changed()
        await asyncio.sleep(0.5)
        assert made["a"].links == frozenset()
        for member in made.members.values():
            await member.close()

    asyncio.run(test())


def test_no_link_between_members_of_two_clusters(tmp_path: Path) -> None:
    """What an old member finds that comes back after the others were made a new cluster."""

    async def test() -> None:
        made = Group(tmp_path)
        await made.add("a", "a")
        old = Member(tmp_path, "b", made.addresses, cluster_id="before")
        made.members["b"] = old
        await old.start("ab")
        for store in made.stores:
            store.addresses_changed()
        await asyncio.sleep(0.5)
        assert made["a"].links == made["b"].links == frozenset()
        assert value(await made["a"].propose(Raise("k")), "k") == 1
        for member in made.members.values():
            await member.close()

    asyncio.run(test())


def test_a_silent_connection_does_not_keep_a_member_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "DIAL_TIMEOUT", 3 * WITHIN)

    async def strike(made: Group) -> None:
        host, port = made.members["a"].address.split(":")
        silent = socket.create_connection((host, int(port)))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(WITHIN):
            await made["a"].stop()
        silent.close()
        await made.members["a"].start("a", fresh=False)

    attack(tmp_path, strike)


def test_silent_connections_do_not_keep_a_member_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "HANDSHAKES", 4)

    async def strike(made: Group) -> None:
        host, port = made.members["a"].address.split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(12)]
        await asyncio.sleep(0.2)
        reader, writer = await dialled(made, "b")
        writer.write(HELLO)
        async with asyncio.timeout(WITHIN):
            assert await reader.readexactly(len(frame(Welcome()))) == frame(Welcome())
        writer.transport.abort()
        closed = 0
        for connection in silent:
            connection.settimeout(0.01)
            with suppress(TimeoutError):
                closed += connection.recv(1) == b""
            connection.close()
        assert closed >= 8

    attack(tmp_path, strike)


def test_a_refused_member_does_not_knock_without_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        made = Group(tmp_path)
        await made.add("a", "a")
        loop = asyncio.get_running_loop()
        knocks: list[float] = []
        really_adopt = made["a"].adopt

        def adopt(connection: socket.socket) -> None:
            knocks.append(loop.time())
            really_adopt(connection)

        old = Member(tmp_path, "b", made.addresses, cluster_id="before")
        monkeypatch.setattr(
            made["a"], "adopt", lambda connection: loop.call_soon_threadsafe(adopt, connection)
        )
        made.members["b"] = old
        await old.start("ab")
        await eventually(lambda: knocks)
        await asyncio.sleep(1.5)
        most = 8 + (loop.time() - knocks[0] - 1.5) / FIRST_PAUSE  # should this have slept for longer
        assert len(knocks) <= most
        for member in made.members.values():
            await member.close()

    asyncio.run(test())


def test_frames_may_arrive_in_any_pieces() -> None:
    messages = [Vote(term=number) for number in range(20)]
    stream = b"".join(map(frame, messages))
    for size in (1, 3, 7, len(stream)):
        frames = Frames()
        received = [
            message
            for start in range(0, len(stream), size)
            for message in frames.feed(stream[start : start + size])
        ]
        assert received == messages


def test_a_frame_longer_than_the_limit_is_not_waited_for() -> None:
    with pytest.raises(Malformed, match="4097 bytes"):
        list(Frames().feed(LENGTH.pack(4097)))


class Board:
    """What a link tells its carrier."""

    cluster_id, me = CLUSTER, "a"

    def __init__(self) -> None:
        self.told: list[str] = []

    def member_of(self, transport: object) -> str:
        return "b"

    def up(self, link: object) -> None:
        self.told.append("up")

    def dismissed(self, by: str) -> None:
        self.told.append(f"dismissed by {by}")


class Wire(asyncio.Transport):
    """The far end of a link that was dialled."""

    def __init__(self) -> None:
        super().__init__({"socket": socket.socket()})
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("answers", "told", "aborted"),
    [
        ([frame(Welcome())[:2]], [], False),
        ([frame(Welcome())[:2], frame(Welcome())[2:]], ["up"], False),
        ([frame(Welcome()), frame(Welcome())], ["up"], True),
        ([frame(Dismissed())], ["dismissed by b"], True),
        ([frame(Welcome()), frame(Dismissed())], ["up"], True),
        ([frame(Vote(term=9))], [], True),
        ([b"HTTP/1.1 400 Bad Request\r\n"], [], True),
    ],
)
def test_only_a_whole_welcome_brings_a_link_up(answers: list[bytes], told: list[str], aborted: bool) -> None:
    async def dialling() -> None:
        board, wire = Board(), Wire()
        link = Outgoing(board, "b")  # type: ignore[arg-type]  # it has what an outgoing link needs
        link.connection_made(wire)
        for answer in answers:
            link.data_received(answer)
        assert (board.told, wire.aborted) == (told, aborted)
        wire.get_extra_info("socket").close()

    asyncio.run(dialling())
