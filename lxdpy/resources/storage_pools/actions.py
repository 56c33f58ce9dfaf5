"""This member's part of the storage pools: made, opened and removed as the rows say."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error, ErrorInfo, NotFound, Unavailable, from_info
from cluster.membership.model import name_of
from cluster.state.txn import State
from lxdpy.host.storage.driver import Pool as HostPool
from lxdpy.host.storage.driver import StorageDriver
from lxdpy.host.storage.registry import open_driver
from lxdpy.resources.cluster.model import MemberConfigKey
from lxdpy.resources.storage_pools.commands import ForgetPool, SetPoolMember
from lxdpy.resources.storage_pools.model import GONE_POOLS, POOLS, Pool, PoolMember, errored

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


class Pools:
    """The pools that are open here, by name."""

    def __init__(self) -> None:
        self._open: dict[str, StorageDriver] = {}
        self.daemon: Daemon  # set by the daemon's main, once there is one

    def driver(self, name: str) -> StorageDriver:
        """Raises NotFound for a pool that is not there at all, Unavailable for one that is not open here."""
        if name in self._open:
            return self._open[name]
        row = self.daemon.state.get(POOLS, name)
        own = row.members.get(self.daemon.member_id, PoolMember())
        why = own.error or "it is being made"
        raise Unavailable(f"Storage pool {name} cannot be used on {self.daemon.name}: {why}", pool=name)

    def opened(self) -> list[StorageDriver]:
        return list(self._open.values())

    async def ensure(self, name: str) -> None:
        """Bring this member's part in line with the row; reports what became of it. Idempotent.

        A member that has just joined waits for its own keys of the pool, see `introduce`.
        """
        async with self.daemon.lock(f"pool {name}"):
            if not await self._clear(name):
                return
            row, me = self.daemon.state.find(POOLS, name), self.daemon.member_id
            if row is not None and row.status == "Created" and name not in self._open and me in row.members:
                await self._make(row)

    async def _clear(self, name: str) -> bool:
        """Take down what is here of deleted pools of that name. False while it is not known for sure that
        they are deleted, and not made anew since.
        """
        state, me = self.daemon.state, self.daemon.member_id
        for gone, row in sorted(state.rows(GONE_POOLS).items()):
            if row.name != name or me not in row.members:
                continue
            if not self.daemon.current:
                return False
            pool = self.on_host(row, row.members[me])
            driver = self._open.pop(name, None) or open_driver(
                row.driver, pool, self.daemon.runtime.mounts
            )  # from here on nobody makes anything in it, though there be a new one of that name
            await driver.delete_pool()
            await self.daemon.store.propose(ForgetPool(gone, me))
        return True

    async def _make(self, row: Pool) -> None:
        own = row.members[self.daemon.member_id]
        pool = self.on_host(row, own)
        driver = open_driver(row.driver, pool, self.daemon.runtime.mounts)
        try:
            if own.status == "Created":
                await driver.open_pool()
            else:
                await driver.create_pool()
        except Error as failure:
            if own.error != failure.message:
                await self._report(row.name, PoolMember(own.config, "Errored", failure.message, failure.kind))
            raise
        self._open[row.name] = driver
        if own.status != "Created" or own.error:
            await self._report(row.name, PoolMember(found_out(row.driver, pool, own.config), "Created"))

    def on_host(self, row: Pool, own: PoolMember) -> HostPool:
        """For the driver, a source that is the daemon's own choice is none."""
        pool = HostPool(row.name, self.daemon.root, {**row.config, **own.config})
        if pool.config.get("source") != own_source(row.driver, pool):
            return pool
        rest = {key: value for key, value in pool.config.items() if key != "source"}
        return HostPool(row.name, self.daemon.root, rest)

    async def _report(self, name: str, row: PoolMember) -> None:
        try:
            await self.daemon.store.propose(SetPoolMember(name, self.daemon.member_id, row))
        except NotFound:
            log.info("pool %s was deleted meanwhile", name)

    async def wait_for(self, name: str, timeout: float = 60.0) -> None:
        """Until every member that is online has made its part, or failed. Raises the first failure."""

        def settled(state: State) -> bool:
            row = state.find(POOLS, name)
            parts = row.members.items() if row else ()
            return all(own.status != "Pending" or not self.daemon.beat.online(m) for m, own in parts)

        try:
            row = (await self.daemon.until(settled, timeout)).get(POOLS, name)
        except TimeoutError:
            log.info("pool %s: not all members have made it yet; they go on", name)
            return
        for member, own in sorted(row.members.items()):
            if own.error:
                where = f"Member {name_of(self.daemon.state, member)}: " if self.daemon.clustered else ""
                facts = {"pool": name, "member": member}
                raise from_info(ErrorInfo(own.kind, where + own.error, facts))

    async def wait_gone(self, name: str, timeout: float = 30.0) -> None:
        """Until no member that is online has anything of a deleted pool of that name; at most so long."""

        def gone(state: State) -> bool:
            rows = (row for row in state.rows(GONE_POOLS).values() if row.name == name)
            return not any(self.daemon.beat.online(member) for row in rows for member in row.members)

        try:
            await self.daemon.until(gone, timeout)
        except TimeoutError:
            log.info("pool %s: not all members have removed it yet; they go on", name)

    async def introduce(self, keys: Sequence[MemberConfigKey]) -> None:
        """After joining: this member's own keys for every pool of the cluster, which it then makes."""
        for name, row in sorted(self.daemon.state.rows(POOLS).items()):
            if self.daemon.member_id in row.members:
                continue
            config = {
                k.key: k.value for k in keys if k.entity == "storage-pool" and k.name == name and k.value
            }
            await self._report(name, PoolMember(config))

    async def abandon(self) -> None:
        """Another identity is taken on: empty pools go, those with volumes are closed and stay on disk."""
        for name, driver in list(self._open.items()):
            try:
                volumes = await driver.volumes()
                for volume in volumes:
                    await driver.unmount(volume)
                await (driver.close_pool() if volumes else driver.delete_pool())
            except Error as failure:
                log.warning("leaving storage pool %s: %s", name, failure.message)
            self._open.pop(name, None)  # its row may be gone as well


def own_source(driver: str, pool: HostPool) -> str:
    """Where a driver makes a pool that was given no source."""
    return str(pool.mount if driver == "dir" else pool.loop_file)


def found_out(driver: str, pool: HostPool, config: dict[str, str]) -> dict[str, str]:
    """The member's own keys with what was chosen where the user did not, as LXD shows them."""
    found = {"source": own_source(driver, pool), **config}
    if pool.loop_file.is_file() and "size" not in found:
        found["size"] = size_text(pool.loop_file.stat().st_size)
    return found


def size_text(size: int) -> str:
    """In GiB where that is exact."""
    return f"{size >> 30}GiB" if size % (1 << 30) == 0 else str(size)


def shown_config(row: Pool, member: str) -> dict[str, str]:
    """The config as that member (id) sees it; members' own keys are left out for an empty id."""
    own = row.members.get(member, PoolMember()).config if member else {}
    return {**row.config, **own}


def with_status(row: Pool) -> Pool:
    """The row with the status that its members' parts add up to."""
    if row.status == "Created" and errored(row):
        return msgspec.structs.replace(row, status="Errored")
    return row
