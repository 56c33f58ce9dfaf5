"""Devices of a running container that come and go by themselves: it has those that the host has."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lxdpy.host.devices.driver import Changing, Node
from lxdpy.host.devices.unix_options import DeviceMissing, attachment
from lxdpy.resources.instances import disk_limits, forwards
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.devices import driver_of, notes_of, seat_of
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.hotplug import files_of_others
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import note, present
from lxdpy.resources.instances.renumber import renumber
from lxdpy.resources.instances.spec import device_node, limits_of
from lxdpy.resources.profiles.model import Config

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Number = tuple[str, str, int, int]


async def attend(daemon: "Daemon", row: Instance, has: Expanded) -> None:
    """Bring those that the container `has` in line with the host, and keep watch.

    The caller holds the instance's lock.
    """
    paths = {name: paths for name in sorted(has[1]) if (paths := _watched(daemon, row, has, name))}
    daemon.device_watch.watch(row.key, [path for found in paths.values() for path in found])
    notes: dict[str, str] = {}
    for name in paths:
        notes |= await _align(daemon, row, has, name)
    if notes:
        await note(daemon, present(daemon, row.key), notes)


async def look_again(daemon: "Daemon", row: Instance) -> None:
    """Also at its processes; nothing if it is not known what the container has."""
    if given := await records.load(daemon, row):
        row = present(daemon, row.key)
        has = records.has(row, given)
        await limit_pages(daemon, row, has[0])
        await forwards.ensure_all(daemon, row, has)
        if disk_limits.are_limited(has[1]):
            await disk_limits.limit(daemon, row, has)
        if await renumber(daemon, row, given, has):
            row = present(daemon, row.key)
            has = records.has(row, given)
        await attend(daemon, row, has)


async def limit_pages(daemon: "Daemon", row: Instance, config: Config) -> None:
    """LXC sets no limits of the controllers that are in control groups v2 beside v1."""
    limits = limits_of(row, config)
    if limits.hugepages:
        await daemon.runtime.set_limits(row.volume, limits)


def _watched(daemon: "Daemon", row: Instance, has: Expanded, name: str) -> tuple[str, ...]:
    if has[1][name].get("type") not in daemon.devices.changing:
        return ()
    seat = seat_of(daemon, row, has[0], name, has[1][name])
    driver = driver_of(daemon, seat)
    return driver.watched(seat.options) if isinstance(driver, Changing) else ()


async def _align(daemon: "Daemon", row: Instance, has: Expanded, name: str) -> dict[str, str]:
    """What to remember, if anything has changed."""
    seat = seat_of(daemon, row, has[0], name, has[1][name])
    driver = driver_of(daemon, seat)
    try:
        part = await driver.start(seat)
    except DeviceMissing:
        part = attachment([])
    old, new = _numbers((await driver.detach(seat)).nodes), _numbers(part.nodes)
    if old.keys() == new.keys():
        return {}
    kept = await files_of_others(daemon, row, has, name)
    for number, node in old.items():
        if number not in new and node.path not in kept:
            await daemon.runtime.eject_device(row.volume, device_node(node))
    for number, node in new.items():
        if number not in old:
            await daemon.runtime.inject_device(row.volume, device_node(node))
    return notes_of(name, part)


def _numbers(nodes: Iterable[Node]) -> dict[Number, Node]:
    return {(node.path, node.kind, node.major, node.minor): node for node in nodes}
