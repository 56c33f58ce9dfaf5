"""The target's part: what it answers to an offer, and the files, into volumes of its own."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import Error, Invalid, Unavailable
from lxdpy.host import rsync
from lxdpy.host.rsync import Features
from lxdpy.host.shift import Unmap, unshift
from lxdpy.host.storage.driver import StorageDriver, Volume
from lxdpy.resources.remotes.header import RSYNC, Header, Part, Verdict, common
from lxdpy.resources.remotes.link import Link, attended

MOST_SNAPSHOTS = 10_000  # of one offer

Base = AbstractAsyncContextManager[Path | None]
Plan = Callable[[Header], Awaitable[tuple[Part, ...]]]
Work = Callable[[], Coroutine[Any, Any, None]]


async def at_once(work: Work) -> None:
    """With nothing around it."""
    await work()


class Receiver(NamedTuple):
    """What becomes of the files. Of the offered snapshots `choose` names those that are wanted."""

    choose: Plan
    part: Callable[[Part, "Fill"], Awaitable[None]]  # makes that snapshot
    whole: Callable[["Fill"], Awaitable[None]]  # makes what it is now
    unmap: Callable[[Header, Part | None], Unmap]  # how the owners of the files of a part, or of it, change
    around: Callable[[Work], Awaitable[None]] = at_once
    """Does what is to be done before files come, and after."""


Fill = Callable[[StorageDriver, Volume, Base], Awaitable[None]]
"""Makes that volume of what comes next; what is the same in the base is taken from there."""


async def receive(link: Link, receiver: Receiver, ours: Features, *, refresh: bool) -> None:
    """All of it, and tell the other end what became of it. Raises its reason if it gives up."""
    try:
        offer = await link.answer()
        check(offer)
        parts = await receiver.choose(offer)
        features = common(offer.features, ours)
        names = tuple(part.name for part in parts)
        refresh = refresh or names != offer.names  # else all would be sent
        answer = Header(features, runs=offer.runs, names=names, snapshots=parts, refresh=refresh)
        await link.offer(answer)

        async def work() -> None:
            await attended(link, _files(link, receiver, offer, parts, features), to_the_end=False)

        await receiver.around(work)
        await link.tell(Verdict(success=True))
    except Error as failure:
        with suppress(Unavailable):
            await link.tell(Verdict(success=False, message=failure.message))
        raise


def check(offer: Header) -> None:
    """Raises Invalid."""
    names = [part.name for part in offer.snapshots]
    if list(offer.names) != names or len(set(names)) != len(names):
        raise Invalid("The source does not describe the snapshots that it offers")
    if len(names) > MOST_SNAPSHOTS:
        raise Invalid(f"The source offers {len(names)} snapshots: {MOST_SNAPSHOTS} at most")
    if offer.fs != RSYNC and offer.features == Features():
        raise Invalid("The source can send no files by rsync")


async def _files(
    link: Link, receiver: Receiver, offer: Header, parts: Sequence[Part], features: Features
) -> None:
    def filled(times: int, unmap: Unmap) -> Fill:
        async def fill(driver: StorageDriver, volume: Volume, base: Base) -> None:
            async def into(folder: Path) -> None:
                async with base as same:
                    for _ in range(times):
                        await rsync.receive(folder, link, features, same)
                await asyncio.to_thread(own, folder, unmap, volume.kind == "container")

            await driver.fill(volume, into)

        return fill

    for part in parts:
        await receiver.part(part, filled(1, receiver.unmap(offer, part)))
    await receiver.whole(filled(2 if offer.runs else 1, receiver.unmap(offer, None)))


def own(folder: Path, unmap: Unmap, private: bool) -> None:
    """Give the files the container's own ids, if they came with a host's; the folder itself is the pool's,
    if it is `private`. Blocks.
    """
    if unmap:
        unshift(folder, unmap)
    if private:
        os.chown(folder, 0, 0)
        folder.chmod(stat.S_IRWXU)


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """There is nothing that it may have in common with."""
    yield None
