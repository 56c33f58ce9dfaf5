"""Messages of LXC's monitor, as liblxc 5.0.2 sends them on a 64-bit host."""

import struct

import pytest

from lxdpy.host.intercept.message import ANSWER, CALL, HEAD, Answer, parse, reply


def message(*, reserved: int = 0, size: int = 80) -> bytes:
    head = HEAD.pack(reserved, 11, 12, size, 24, 64, 2)
    call = CALL.pack(7, 13, 0, 259, 0xC000003E, 0, *range(6))
    return head + call + bytes(24) + b"c1"


def test_a_call_is_read_as_it_was_made() -> None:
    call = parse(message())
    assert call is not None
    assert (call.id, call.thread, call.init, call.number) == (7, 13, 12, 259)
    assert (call.architecture, call.arguments) == (0xC000003E, (0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    "wrong",
    [b"", message()[:100], message(reserved=1), message(size=96)],
    ids=["nothing", "short", "reserved", "other sizes"],
)
def test_what_is_no_call_is_not_taken_for_one(wrong: bytes) -> None:
    assert parse(wrong) is None


def test_the_reply_has_the_same_id_and_no_cookie() -> None:
    said = reply(message(), Answer(value=3, errno=17))
    assert len(said) == HEAD.size + CALL.size + ANSWER.size
    assert said[: HEAD.size + CALL.size] == message()[: HEAD.size + CALL.size]
    assert struct.unpack("=QqiI", said[-24:]) == (7, 3, -17, 0)
