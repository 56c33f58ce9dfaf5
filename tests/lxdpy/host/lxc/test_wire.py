import os

import pytest

from lxdpy.host.lxc import wire


def test_a_message_arrives_whole_with_its_descriptors() -> None:
    ours, theirs = wire.pair()
    reading, writing = os.pipe()
    with ours, theirs:
        wire.send(ours, {"id": 1, "words": ["x" * 500_000]}, [writing])
        wire.send(ours, {"id": 2})
        buffer = wire.buffer()
        message, fds = wire.receive(theirs, buffer)
        assert message == {"id": 1, "words": ["x" * 500_000]}
        os.write(fds[0], b"through")
        assert os.read(reading, 10) == b"through"
        assert not os.get_inheritable(fds[0])
        assert wire.receive(theirs, buffer) == ({"id": 2}, [])
    for fd in (reading, writing, *fds):
        os.close(fd)


def test_the_end_of_the_other_side_is_no_message() -> None:
    ours, theirs = wire.pair()
    ours.close()
    with theirs:
        assert wire.receive(theirs, wire.buffer()) == (None, [])


def test_a_message_the_other_end_could_not_take_is_not_sent() -> None:
    ours, theirs = wire.pair()
    with ours, theirs, pytest.raises(OSError, match="too long"):
        wire.send(ours, {"words": "x" * wire.LIMIT})
