import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

from lxdpy.rest.splice import Near


def test_the_last_words_of_a_client_that_goes_reach_the_owner() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=ours)
        owner, end = await asyncio.open_unix_connection(sock=theirs)
        near = Near(cast(Any, SimpleNamespace(protocol=None)), writer)
        near.feed_data(b"last words")
        near.feed_eof()  # before anybody had a turn to pass them on
        async with asyncio.timeout(30):
            said = await owner.read()
        end.close()
        return said

    assert asyncio.run(main()) == b"last words"
