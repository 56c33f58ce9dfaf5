"""Looking through this member's pools, and registering what is found there."""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error, Invalid
from lxdpy.host.storage.driver import StorageDriver
from lxdpy.host.storage.driver import check_name as check_pool_name
from lxdpy.host.storage.layout import FOLDERS
from lxdpy.host.storage.registry import open_driver, pool_keys
from lxdpy.resources.recovery.model import PoolAsked
from lxdpy.resources.recovery.plan import Plan, planned
from lxdpy.resources.recovery.scan import Found, scan
from lxdpy.resources.storage_pools.actions import found_out, own_source
from lxdpy.resources.storage_pools.commands import SetPoolMember
from lxdpy.resources.storage_pools.model import OWN_KEYS, POOLS, Pool, PoolMember

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

replace = msgspec.structs.replace


class Opened(msgspec.Struct):
    """A pool that this member has not had so far, as it will be registered."""

    row: Pool
    driver: StorageDriver


async def validate(daemon: "Daemon", asked: Iterable[PoolAsked]) -> Plan:
    """What an import would do. Changes nothing. Raises Invalid for a pool that cannot be opened."""
    async with daemon.lock("recovery"), AsyncExitStack() as stack:
        opened = [await _opened(daemon, pool, stack) for pool in asked]
        return await _look(daemon, opened)


async def run(daemon: "Daemon", asked: Iterable[PoolAsked]) -> Plan:
    """Register all that is found. Raises Invalid, and registers nothing, if anything is in the way.

    If another change comes in between, what was registered by then stays, each whole: run it again.
    """
    async with daemon.lock("recovery"), AsyncExitStack() as stack:
        opened = [await _opened(daemon, pool, stack) for pool in asked]
        plan = await _look(daemon, opened)
        if plan.errors:
            raise Invalid(f"Cannot be recovered yet: {'; '.join(plan.errors)}")
        for one in opened:
            await _adopt(daemon, one.row, plan)
        for command in plan.commands():
            await daemon.store.propose(command)
        for instance, _ in plan.instances:  # of its last life
            (daemon.root / "run" / f"{instance.volume}.json").unlink(missing_ok=True)
        log.info("recovered %d instances, %d volumes", len(plan.instances), len(plan.volumes))
        return plan


async def _look(daemon: "Daemon", opened: Iterable[Opened]) -> Plan:
    drivers = {one.row.name: one.driver for one in opened}
    state, me = daemon.state, daemon.member_id
    for row in state.rows(POOLS).values():
        if row.name not in drivers and me in row.members and row.status == "Created":
            drivers[row.name] = daemon.pools.driver(row.name)
    found: list[Found] = [await scan(daemon, name, driver) for name, driver in sorted(drivers.items())]
    new = [one.row for one in opened if (known := state.find(POOLS, one.row.name)) is None or _waits(known)]
    return planned(state, me, found, new, time.time())


def _waits(row: Pool) -> bool:
    """For its second step."""
    return row.status == "Pending"


async def _adopt(daemon: "Daemon", row: Pool, plan: Plan) -> None:
    command = next((command for command in plan.pools if command.pool.name == row.name), None)
    me = daemon.member_id
    await daemon.store.propose(command or SetPoolMember(row.name, me, row.members[me]))
    await daemon.pools.ensure(row.name)


async def _opened(daemon: "Daemon", asked: PoolAsked, stack: AsyncExitStack) -> Opened:
    """Open until `stack` ends, and from then on if it has been registered. Raises Invalid."""
    row = _row(daemon, asked)
    own = row.members[daemon.member_id]
    pool = daemon.pools.on_host(row, own)
    source = pool.config.get("source") or own_source(row.driver, pool)
    if why := await asyncio.to_thread(_is_no_pool, Path(source)):
        raise Invalid(f'Storage pool "{row.name}" is not there: {why}', key="source", value=source)
    driver = open_driver(row.driver, pool, daemon.runtime.mounts)
    stack.push_async_callback(_close, daemon, row.name, driver)
    try:
        await driver.open_pool()
    except Error as failure:
        raise Invalid(f'Storage pool "{row.name}" cannot be opened: {failure.message}') from None
    settled = replace(own, config=found_out(row.driver, pool, own.config))
    return Opened(replace(row, members={**row.members, daemon.member_id: settled}), driver)


def _is_no_pool(source: Path) -> str:
    """Why, as far as that is seen from outside: to open a pool is to make its folders. Blocks."""
    if not source.exists():
        return f"no {source}"
    if source.is_dir() and not any((source / name).is_dir() for name in FOLDERS.values()):
        return f"{source} has none of the folders {', '.join(FOLDERS.values())}"
    return ""


async def _close(daemon: "Daemon", name: str, driver: StorageDriver) -> None:
    known = daemon.state.find(POOLS, name)
    if known is None or known.members.get(daemon.member_id, PoolMember()).status != "Created":
        await driver.close_pool()


def _row(daemon: "Daemon", asked: PoolAsked) -> Pool:
    """As it will be, with this member's part made. Raises Invalid."""
    check_pool_name(asked.name)
    state, me = daemon.state, daemon.member_id
    known = state.find(POOLS, asked.name)
    if known is not None and asked.driver not in ("", known.driver):
        raise Invalid(f'Storage pool "{known.name}" has driver "{known.driver}", not "{asked.driver}"')
    own = known.members.get(me, PoolMember()) if known else PoolMember()
    if own.status == "Created":
        raise Invalid(f'Storage pool "{asked.name}" is known already: leave it out', key="pools")
    row = known or Pool(asked.name, asked.driver, asked.description)
    config = {key: value for key, value in (asked.config or {}).items() if value}
    pool_keys(row.driver).check(config)
    part = {key: value for key, value in config.items() if key in OWN_KEYS}
    if known is None:
        row = replace(row, config={key: value for key, value in config.items() if key not in OWN_KEYS})
    members = {**row.members, me: PoolMember(own.config | part, "Created")}
    return replace(row, members=members)
