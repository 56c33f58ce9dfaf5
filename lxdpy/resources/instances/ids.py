"""Which ids of the host an instance has: a range of its own, and single ones that are let through.

Every instance has a range that no other of the whole cluster has, so that it can go anywhere and keep it, and
so that `security.idmap.isolated` is always true of it. With that key it may also have another size, or begin
where the user says. It is reserved in the log before a start, as what a running container has cannot change.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.errors import Invalid
from lxdpy.config.instance import INSTANCE
from lxdpy.host.idmap import Hole
from lxdpy.resources.instances.commands import ReserveIds
from lxdpy.resources.instances.model import IDMAP_BASE, IDMAP_SIZE, INSTANCES, IdRange, Instance
from lxdpy.resources.profiles.model import Config

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

RAW = "raw.idmap"


def wanted(config: Config) -> IdRange:
    """`base` 0: any."""
    size, base = (INSTANCE.parsed(config, f"security.idmap.{word}") for word in ("size", "base"))
    if INSTANCE.parsed(config, "security.idmap.isolated") is not True:
        return IdRange(0, IDMAP_SIZE)
    return IdRange(base if isinstance(base, int) else 0, size if isinstance(size, int) else IDMAP_SIZE)


def fits(row: Instance, ids: IdRange) -> bool:
    """Whether it has what is wanted; a base that is not asked for any more is given up."""
    has = row.host_ids
    if not ids.base:
        first = IDMAP_BASE + row.idmap * IDMAP_SIZE
        return (has.base, has.size) == (first, ids.size)
    return has == ids


async def reserve(daemon: "Daemon", row: Instance, config: Config) -> Instance:
    """The row with the ids that it is to be started with. Raises Conflict, Exhausted, Invalid."""
    ids = wanted(config)
    if INSTANCE.parsed(config, "security.privileged") is True or fits(row, ids):
        return row
    state = await daemon.store.propose(ReserveIds(row.key, daemon.member_id, ids.size, ids.base))
    return state.get(INSTANCES, row.key)


def check_ids(config: Config) -> None:
    """Raises Invalid, naming the key."""
    ids = wanted(config)
    holes_of(config, ids.size)
    if ids.base and ids.base + ids.size > 2**32 - 2:
        raise Invalid(
            f"security.idmap.base: {ids.base} leaves no room for {ids.size} ids", key="security.idmap.base"
        )


def holes_of(config: Config, size: int) -> tuple[Hole, ...]:
    """What `raw.idmap` lets through. Raises Invalid for what is not a hole in a map of so many ids."""
    lines = INSTANCE.parsed(config, RAW)
    holes = tuple(_hole(line, size) for line in (lines if isinstance(lines, tuple) else ()))
    for kind in ("users", "groups"):
        for place in ("inside", "host"):
            spans = sorted((getattr(hole, place), hole.length) for hole in holes if getattr(hole, kind))
            for (first, length), (second, _) in pairwise(spans):
                if first + length > second:
                    raise Invalid(f"{RAW}: two lines are for {kind[:-1]} {second}", key=RAW)
    return holes


def _hole(line: str, size: int) -> Hole:
    which, host, inside = line.split()
    (host_first, host_length), (first, length) = _span(host), _span(inside)
    if host_length != length:
        raise Invalid(f"{RAW}: {line}: {host_length} ids of the host for {length} inside", key=RAW)
    if not 0 < host_first < host_first + length <= IDMAP_BASE:
        raise Invalid(f"{RAW}: {line}: ids of the host are from 1 to {IDMAP_BASE - 1}", key=RAW)
    if not 0 < first < first + length <= size:
        raise Invalid(f"{RAW}: {line}: ids inside are from 1 to {size - 1}", key=RAW)
    return Hole(first, host_first, length, users=which != "gid", groups=which != "uid")


def _span(text: str) -> tuple[int, int]:
    """First and how many, of `5` or `5-9`."""
    first, _, last = text.partition("-")
    return int(first), int(last or first) - int(first) + 1
