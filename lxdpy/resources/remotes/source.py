"""The source's part: what is offered, and the files."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.errors import Error, Invalid, Unavailable
from lxdpy.config.types import boolean, size
from lxdpy.host import rsync
from lxdpy.host.rsync import Features
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.migration.files import reading, still
from lxdpy.resources.remotes.header import RSYNC, Header, Part, Verdict, common
from lxdpy.resources.remotes.link import Link, attended
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.storage_pools.model import POOLS, Pool

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

KNOWN_NOTES = ("volatile.base_image",)  # of ours that other servers know as well, besides addresses

Folder = Callable[[str], AbstractAsyncContextManager[Path]]


class Offer(NamedTuple):
    """What can be sent, of an instance or a volume."""

    pool: Pool
    parts: tuple[Part, ...]  # its snapshots, oldest first
    folder: Folder  # of the snapshot of that name, or with "" of what it is now; it does not change meanwhile
    only: tuple[str, ...] = rsync.PARTS  # what is sent of a folder; (): all


def offer_of(
    daemon: "Daemon", row: Instance, snapshots: list[Snapshot], snapshot: Snapshot | None = None
) -> Offer:
    """An instance with those snapshots, or one snapshot as if it were an instance."""
    ids = {one.name: one.id for one in snapshots}

    @asynccontextmanager
    async def folder(name: str) -> AsyncIterator[Path]:
        id = ids[name] if name else snapshot.id if snapshot else ""
        async with still(daemon, row, id) as volume, reading(daemon, row.pool, volume) as path:
            yield path

    pool = daemon.state.get(POOLS, row.pool)
    return Offer(pool, tuple(part_of(one) for one in snapshots), folder)


def part_of(snapshot: Snapshot) -> Part:
    return Part(
        name=snapshot.name,
        config={key: value for key, value in snapshot.config.items() if is_known(key)},
        devices=snapshot.devices,
        profiles=snapshot.profiles,
        ephemeral=snapshot.ephemeral,
        architecture=snapshot.architecture,
        created_at=snapshot.created_at,
        used_at=snapshot.last_used_at,
        expires_at=snapshot.expires_at,
    )


def is_known(key: str) -> bool:
    """Whether another server may be told: it refuses notes that it does not know."""
    return not key.startswith("volatile.") or key in KNOWN_NOTES or key.endswith(".hwaddr")


def features_of(pool: Pool) -> Features:
    """What we can do, as the pool's config has it."""
    compress = bool(boolean(pool.config.get("rsync.compression") or "true"))
    return Features(xattrs=True, delete=True, compress=compress, bidirectional=True, whole=True)


async def send(offer: Offer, link: Link) -> None:
    """All that the other end asks for. Raises its reason if it does not take it."""
    ours = features_of(offer.pool)
    names = tuple(part.name for part in offer.parts)
    try:
        await link.offer(Header(ours, names=names, snapshots=offer.parts))
        answer = await link.answer()
        if answer.fs != RSYNC:
            raise Invalid("The other server can receive no files by rsync")
        wanted = answer.names if answer.refresh else names
        if not set(wanted) <= set(names):
            raise Invalid("The other server asks for snapshots that there are not")
        features = common(answer.features, ours)
        await attended(link, _files(offer, link, wanted, features), to_the_end=True)
    except Error as failure:
        with suppress(Unavailable):
            await link.tell(Verdict(success=False, message=failure.message))
        raise


async def _files(offer: Offer, link: Link, names: tuple[str, ...], features: Features) -> None:
    limit = int(size(offer.pool.config.get("rsync.bwlimit") or "0"))
    for name in (*names, ""):
        async with offer.folder(name) as folder:
            await rsync.send(folder, link, features, limit=limit, parts=offer.only)
