"""Maps of user and group ids between a container and the host.

On disk nothing is ever shifted: root file systems keep the container's own ids, and the mount carries the map
(`lxdpy.host.mounts`). So a map may be given, changed or taken away without touching a file.
"""

import msgspec

from cluster.errors import Invalid

BASE = (
    1_000_000  # where LXD's own maps begin on a host without /etc/subuid; clear of system and network users
)
SIZE = 65_536  # ids a container gets unless told otherwise: what Debian's tools and systemd expect
SHARED_SIZE = 1_000_000_000  # one map for all containers that are not isolated, as LXD makes it
LAST = 2**32 - 2  # 2**32 - 1 is "no id" to the kernel


Line = tuple[int, int, int]
"""As in /proc/PID/uid_map: first id inside, first id on the host, how many."""


class Hole(msgspec.Struct, frozen=True):
    """Ids of the host that are let through under a container's own: `raw.idmap`."""

    inside: int
    host: int
    length: int
    users: bool = True
    groups: bool = True


class Idmap(msgspec.Struct, frozen=True):
    """Ids 0 … size-1 of the container are ids base … base+size-1 of the host, users and groups alike.

    But for `holes`, which do not overlap, lie within the size, and leave out 0.
    """

    base: int
    size: int = SIZE
    holes: tuple[Hole, ...] = ()

    @property
    def users(self) -> list[Line]:
        return self._lines([hole for hole in self.holes if hole.users])

    @property
    def groups(self) -> list[Line]:
        return self._lines([hole for hole in self.holes if hole.groups])

    def _lines(self, holes: list[Hole]) -> list[Line]:
        found: list[Line] = []
        start = 0
        for hole in sorted(holes, key=lambda hole: hole.inside):
            if hole.inside > start:
                found.append((start, self.base + start, hole.inside - start))
            found.append((hole.inside, hole.host, hole.length))
            start = hole.inside + hole.length
        if start < self.size:
            found.append((start, self.base + start, self.size - start))
        return found

    @property
    def end(self) -> int:
        """The first id of the host after it."""
        return self.base + self.size

    def host(self, inside: int) -> int:
        """The host's id of a user inside. Raises Invalid for an id the container does not have."""
        return self._host(inside, self.users)

    def host_group(self, inside: int) -> int:
        return self._host(inside, self.groups)

    def _host(self, inside: int, lines: list[Line]) -> int:
        for first, host, length in lines:
            if first <= inside < first + length:
                return host + inside - first
        raise Invalid(f"Id {inside} is not in the container's range of {self.size} ids")

    def inside(self, host: int) -> int | None:
        """The container's id of one of the host's, None if it is not the container's."""
        return host - self.base if self.base <= host < self.end else None


class _Entry(msgspec.Struct, frozen=True):
    """LXD's `idmap.IdmapEntry` on the wire."""

    is_uid: bool = msgspec.field(name="Isuid")
    is_gid: bool = msgspec.field(name="Isgid")
    host_id: int = msgspec.field(name="Hostid")
    inside: int = msgspec.field(name="Nsid")
    length: int = msgspec.field(name="Maprange")


def dump(idmap: Idmap | None) -> str:
    """As in `volatile.idmap.next` and its kin; `[]` for a privileged container, as LXD writes it."""
    if idmap is None:
        return "[]"
    entries = [
        _Entry(is_uid=users, is_gid=not users, host_id=host, inside=inside, length=length)
        for users, lines in ((True, idmap.users), (False, idmap.groups))
        for inside, host, length in lines
    ]
    return msgspec.json.encode(entries).decode()


def load(text: str) -> Idmap | None:
    """The reverse of `dump()`. Raises Invalid for what is not one range, the same for users and groups."""
    try:
        entries = msgspec.json.decode(text or "[]", type=list[_Entry])
    except msgspec.DecodeError as error:
        raise Invalid(f"Not an id map: {error}") from None
    if not entries:
        return None
    ranges = {(entry.inside, entry.host_id, entry.length) for entry in entries}
    users = any(entry.is_uid for entry in entries)
    groups = any(entry.is_gid for entry in entries)
    if len(ranges) != 1 or not (users and groups) or (found := next(iter(ranges)))[0] != 0:
        raise Invalid("Only id maps of one range, the same for users and groups, from 0, are supported")
    return Idmap(found[1], found[2])


def of_process(users: str, groups: str) -> Idmap | None:
    """From the texts of /proc/PID/uid_map and gid_map; None for a process that has the host's own ids."""
    maps = [[tuple(map(int, line.split())) for line in text.splitlines()] for text in (users, groups)]
    first, base, _ = maps[0][0]
    if first or not base:
        return None
    size = max(inside + length for inside, _, length in maps[0])
    holes = [
        Hole(inside, host, length, users=kind == 0, groups=kind == 1)
        for kind, lines in enumerate(maps)
        for inside, host, length in lines
        if host - inside != base
    ]
    return Idmap(base, size, tuple(holes))
