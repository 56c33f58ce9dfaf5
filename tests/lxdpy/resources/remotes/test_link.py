"""Who is believed when a transfer fails: the end that met the cause."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from cluster.errors import Conflict, Exhausted, Unavailable
from lxdpy.host.run import CommandFailed
from lxdpy.resources.remotes.header import Verdict
from lxdpy.resources.remotes.link import LOST, Link, attended
from lxdpy.resources.remotes.model import peer_of

Said = Callable[[], Awaitable[Verdict]]


class Heard(Link):
    """A link of which only the verdict is asked for."""

    def __init__(self, said: Said) -> None:
        self.verdict = said  # type: ignore[method-assign, assignment]


def saying(verdict: Verdict | None, after: asyncio.Event | None = None) -> Heard:
    async def said() -> Verdict:
        if after is not None:
            await after.wait()
        if verdict is None:
            raise Unavailable(LOST)
        return verdict

    return Heard(said)


async def failing(failure: Exception) -> None:
    raise failure


async def never() -> None:
    await asyncio.Event().wait()


FULL = Verdict(success=False, message="No space left")


def run(link: Link, work: Coroutine[Any, Any, None], *, to_the_end: bool = True) -> None:
    asyncio.run(attended(link, work, to_the_end=to_the_end))


def test_a_failure_of_the_other_end_ends_the_work() -> None:
    with pytest.raises(Conflict, match="No space left"):
        run(saying(FULL), never())


def test_that_the_other_end_is_gone_ends_the_work() -> None:
    with pytest.raises(Conflict, match=LOST):
        run(saying(None), never(), to_the_end=False)


def test_a_broken_rsync_is_explained_by_the_other_end() -> None:
    with pytest.raises(Conflict, match="No space left"):
        run(saying(FULL), failing(CommandFailed("rsync failed: closed")))


def test_a_cause_of_our_own_is_told_whatever_the_other_end_says() -> None:
    broken = asyncio.Event()

    async def full() -> None:
        broken.set()
        raise Exhausted("No space here")

    with pytest.raises(Exhausted, match="No space here"):
        run(saying(Verdict(success=False, message="rsync failed"), broken), full())


def test_a_cause_of_our_own_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end waits for it, and not for ever."""
    monkeypatch.setattr("lxdpy.resources.remotes.link.GIVES_REASON", 1e6)

    async def main() -> None:
        async with asyncio.timeout(30):
            await attended(
                saying(FULL, asyncio.Event()), failing(Exhausted("No space here")), to_the_end=True
            )

    with pytest.raises(Exhausted, match="No space here"):
        asyncio.run(main())


def test_the_source_waits_for_the_verdict_and_the_target_does_not() -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    run(saying(Verdict(success=True), done), work())
    run(saying(FULL, asyncio.Event()), work(), to_the_end=False)
    done.clear()
    with pytest.raises(Conflict, match="No space left"):
        run(saying(FULL, done), work())


def test_secrets_go_to_the_operation_and_nowhere_else() -> None:
    peer = peer_of(
        "https://h:8443/1.0/operations/x?project=p", "PEM", {"control": "a", "fs": "b", "criu": "c"}, "source"
    )
    assert (peer.websocket, peer.secrets) == (
        "wss://h:8443/1.0/operations/x/websocket",
        {"control": "a", "fs": "b"},
    )
