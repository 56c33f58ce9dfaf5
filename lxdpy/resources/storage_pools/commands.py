"""Raft commands of storage pools."""

import msgspec

from cluster.errors import AlreadyExists, Invalid
from cluster.membership.model import MEMBERS, name_of
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.snapshots.model import SNAPSHOTS
from lxdpy.resources.storage_pools.model import GONE_POOLS, POOLS, Pool, PoolMember, errored
from lxdpy.resources.storage_volumes.model import volume_url, volumes
from lxdpy.resources.volume_snapshots.model import ready, snapshot_url
from lxdpy.resources.wire import url

replace = msgspec.structs.replace


class DefinePool(Command, frozen=True, tag="pool.define"):
    """First step in a cluster: what is particular to one member. Repeated once a member."""

    name: str
    driver: str
    member: str
    config: dict[str, str]

    def apply(self, txn: Txn) -> None:
        before = txn.find(POOLS, self.name) or Pool(self.name, self.driver)
        if before.status != "Pending" or self.member in before.members:
            member = name_of(txn, self.member)
            raise AlreadyExists(f'The storage pool already defined on member "{member}"')
        if before.driver != self.driver:
            raise Invalid(f'Storage pool has driver "{before.driver}", not "{self.driver}"', key="driver")
        members = {**before.members, self.member: PoolMember(self.config)}
        txn.put(POOLS, self.name, replace(before, members=members))


class CreatePool(Command, frozen=True, tag="pool.create"):
    """Second step, or the only one of a cluster of one: every member makes its part when it applies this.

    Of a pool that some members could not make it is another try, with what was given the first time.
    """

    pool: Pool

    def apply(self, txn: Txn) -> None:
        new = self.pool
        before = txn.find(POOLS, new.name)
        if before is not None and before.status == "Created":
            if not errored(before):
                raise AlreadyExists("The storage pool already exists")
            new = before
        members = dict(new.members) or dict(before.members if before else {})
        missing = sorted(name_of(txn, m) for m in txn.rows(MEMBERS) if m not in members)
        if missing:
            if before is None and len(missing) > 1:
                raise Invalid("Pool not pending on any node (use --target <node> first)")
            raise Invalid(f"Pool not defined on nodes: {', '.join(missing)}", members=", ".join(missing))
        pending = {
            m: row if row.status == "Created" else replace(row, status="Pending", error="", kind="")
            for m, row in members.items()
        }
        txn.put(POOLS, new.name, replace(new, status="Created", members=pending))


class SetPoolMember(Command, frozen=True, tag="pool.member"):
    """A member reports what became of its part; `config` holds what it chose itself, as the source."""

    name: str
    member: str
    row: PoolMember

    def apply(self, txn: Txn) -> None:
        txn.get(MEMBERS, self.member)  # a removed one may still have had a report on its way
        pool = txn.get(POOLS, self.name)
        txn.put(POOLS, self.name, replace(pool, members={**pool.members, self.member: self.row}))


class UpdatePool(Command, frozen=True, tag="pool.update"):
    name: str
    description: str
    config: dict[str, str]
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(POOLS, self.name)
        check_etag(self.etag, pool_etag(before))
        txn.put(POOLS, self.name, replace(before, description=self.description, config=self.config))


class DeletePool(Command, frozen=True, tag="pool.delete"):
    """Members take their part down when they have applied this, or come back and see it; then they say so."""

    name: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(POOLS, self.name)
        if users(txn, self.name):
            raise Invalid("The storage pool is currently in use")
        txn.delete(POOLS, self.name)
        if row.status == "Created":
            txn.insert(GONE_POOLS, f"{row.name}@{txn.index}", row)


class ForgetPool(Command, frozen=True, tag="pool.forget"):
    """A member has nothing of a deleted pool any more. Repeating it changes nothing."""

    key: str  # in GONE_POOLS
    member: str

    def apply(self, txn: Txn) -> None:
        row = txn.find(GONE_POOLS, self.key)
        rest = {m: part for m, part in row.members.items() if m != self.member} if row else {}
        if row and rest:
            txn.put(GONE_POOLS, self.key, replace(row, members=rest))
        elif row:
            txn.delete(GONE_POOLS, self.key)


def users(state: State | Txn, pool: str) -> list[str]:
    """URL paths of what uses the pool, or is on its way there, sorted; snapshots are named as well."""
    there = {
        row.key: row
        for row in state.rows(INSTANCES).values()
        if pool in (row.pool, row.move.pool if row.move else row.pool)
    }
    used = [url("instances", row.name, project=row.project) for row in there.values()]
    used += [
        url("instances", row.instance, "snapshots", row.name, project=row.project)
        for row in state.rows(SNAPSHOTS).values()
        if f"{row.project}/{row.instance}" in there
    ]
    used += [
        url("profiles", row.name, project=row.project)
        for row in state.rows(PROFILES).values()
        if any(d.get("type") == "disk" and d.get("pool") == pool for d in row.devices.values())
    ]
    for volume in volumes(state, pool):
        used += [volume_url(state, volume), *(snapshot_url(state, volume, one.name) for one in ready(volume))]
    return sorted(used)


def pool_etag(pool: Pool) -> str:
    return etag_of(pool.name, pool.driver, pool.config, pool.description)


def forget_member(txn: Txn, member: str) -> None:
    """Its part is gone with it."""
    for row in list(txn.rows(POOLS).values()):
        rest = {m: part for m, part in row.members.items() if m != member}
        txn.put(POOLS, row.name, replace(row, members=rest))
    for key in list(txn.rows(GONE_POOLS)):
        ForgetPool(key, member).apply(txn)


COMMANDS: tuple[type[Command], ...] = (
    DefinePool,
    CreatePool,
    SetPoolMember,
    UpdatePool,
    DeletePool,
    ForgetPool,
)
