"""What lies in a pool, as clients see it: instances, images that members keep unpacked, custom volumes."""

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

import msgspec

from cluster.errors import Error, Invalid
from cluster.membership.model import members, name_of
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.projects.model import PROJECTS, home
from lxdpy.resources.snapshots.model import snapshots_of
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.disks import FEATURE, users
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.storage_volumes.model import volumes as custom_volumes
from lxdpy.resources.volume_snapshots.model import ready
from lxdpy.resources.wire import NEVER, rfc3339, url
from lxdpy.rest.route import AnyCall

TYPES = ("container", "virtual-machine", "image", "custom")
PEER_ANSWERS_WITHIN = 2.0  # seconds; a list must not wait for a member that just died


class Volume(msgspec.Struct, frozen=True):
    """A volume on the wire, in LXD's order of fields."""

    config: dict[str, str]
    description: str
    name: str
    type: str
    used_by: list[str]
    location: str
    content_type: str
    project: str
    created_at: str = NEVER

    def url(self, pool: str, *, clustered: bool) -> str:
        """In a cluster, a custom volume's with the member that has it."""
        volume, _, snapshot = self.name.partition("/")
        words = (volume, "snapshots", snapshot) if snapshot else (volume,)
        path = url(f"storage-pools/{pool}/volumes/{self.type}", *words, project=self.project)
        if not clustered or self.type != "custom":
            return path
        return f"{path}{'&' if '?' in path else '?'}target={quote(self.location)}"


def type_of(call: AnyCall) -> str:
    if call.path("type") not in TYPES:
        raise Invalid("Invalid storage volume type name", key="type", value=call.path("type"))
    return call.path("type")


async def volumes(call: AnyCall, types: Iterable[str]) -> list[Volume]:
    """Of the caller's project, or of all it sees; instances first, then custom volumes and images."""
    pool = call.state.get(POOLS, call.path("pool")).name
    rows: list[Volume] = []
    if "container" in types:
        rows += [volume for row in instances(call, pool) for volume in of_instance(call, row)]
    if "custom" in types:
        for row in customs(call, pool):
            rows += [of_custom(call, row), *(of_snapshot(call, row, one) for one in ready(row))]
    if "image" in types:
        rows += await images(call, pool)
    return rows


def customs(call: AnyCall, pool: str) -> list[StorageVolume]:
    """Of all members, unless `?target=` names one."""
    own = "" if call.all_projects else home(call.state, call.project, FEATURE)
    return [
        row
        for row in custom_volumes(call.state, pool, own)
        if call.target in ("", name_of(call.state, row.location))
        and (not call.all_projects or call.identity.sees(row.project))
    ]


def of_custom(call: AnyCall, row: StorageVolume) -> Volume:
    return Volume(
        config=row.config,
        description=row.description,
        name=row.name,
        type="custom",
        used_by=users(call.state, row),
        location=name_of(call.state, row.location),
        content_type="filesystem",
        project=row.project,
        created_at=rfc3339(row.created_at),
    )


def of_snapshot(call: AnyCall, row: StorageVolume, one: VolumeSnapshot) -> Volume:
    """In lists LXD shows snapshots as volumes `volume/snapshot`."""
    return msgspec.structs.replace(
        of_custom(call, row),
        name=f"{row.name}/{one.name}",
        description=one.description,
        config=one.config,
        used_by=[],
        created_at=rfc3339(one.created_at),
    )


def instances(call: AnyCall, pool: str) -> list[Instance]:
    """Those on the pool; of another member's only if `?target=` asks for it."""
    if not call.all_projects:
        call.state.get(PROJECTS, call.project)
    rows = [
        row
        for row in call.state.rows(INSTANCES).values()
        if row.pool == pool
        and (call.identity.sees(row.project) if call.all_projects else row.project == call.project)
        and call.target in ("", name_of(call.state, row.location))
    ]
    return sorted(rows, key=lambda row: (row.project, row.name))


def of_instance(call: AnyCall, row: Instance) -> list[Volume]:
    """Its own, and one for each snapshot."""
    own = Volume(
        config={},
        description="",
        name=row.name,
        type="container",
        used_by=[url("instances", row.name, project=row.project)],
        location=name_of(call.state, row.location),
        content_type="filesystem",
        project=row.project,
    )
    parts = [
        msgspec.structs.replace(
            own,
            name=f"{row.name}/{one.name}",
            used_by=[url("instances", row.name, "snapshots", one.name, project=row.project)],
            created_at=rfc3339(one.created_at),
        )
        for one in snapshots_of(call.state, row.key)
    ]
    return [own, *parts]


async def images(call: AnyCall, pool: str) -> list[Volume]:
    """The images that members keep unpacked in the pool, where this project or all may know of them."""
    known = {
        row.fingerprint: row for row in call.state.rows(IMAGES).values() if call.identity.sees(row.project)
    }
    path = f"/internal/1.0/storage-pools/{pool}/images"

    async def of(member: str) -> list[str]:
        if member == call.daemon.member_id:
            return await call.daemon.pools.driver(pool).images()
        return list(await call.daemon.forwarder.ask(member, "GET", path, timeout=PEER_ANSWERS_WITHIN))

    async def listed_at(member: str) -> list[Volume]:
        try:
            prints = await of(member)
        except Error:
            return []  # the pool is not open there, or the member cannot be reached
        return [
            Volume(
                config={},
                description="",
                name=fingerprint,
                type="image",
                used_by=[url("images", fingerprint, project=known[fingerprint].project)],
                location=name_of(call.state, member),
                content_type="filesystem",
                project="default",
            )
            for fingerprint in sorted(prints)
            if fingerprint in known
        ]

    asked = [
        m.id
        for m in members(call.state)
        if call.target in ("", m.name) and (m.id == call.daemon.member_id or call.daemon.beat.online(m.id))
    ]
    parts = await asyncio.gather(*(listed_at(member) for member in asked))
    return [row for part in parts for row in part]
