"""A running container's GPU files brought in line with the numbers that its cards have by now."""

import logging
from typing import TYPE_CHECKING

import msgspec

from lxdpy.host.devices.driver import Node
from lxdpy.host.devices.gpu_numbers import Numbers, Renumbered
from lxdpy.host.devices.gpu_options import NODES
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.devices import driver_of, seat_of
from lxdpy.resources.instances.given import Expanded, Given
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import note
from lxdpy.resources.instances.spec import device_node

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


async def renumber(daemon: "Daemon", row: Instance, given: Given, has: Expanded) -> bool:
    """Whether something was changed. All files go before the first comes: cards may have changed places.

    LXC's own restart would bring the old ones again; so it counts as started with other devices.
    """
    found = await _numbers(daemon, row, has)
    changed = {name: numbers for name, numbers in found.items() if numbers.loses or numbers.gets}
    unknown = {name: numbers for name, numbers in found.items() if f"volatile.{name}.{NODES}" not in has[0]}
    if not changed:
        await _note(daemon, row, unknown)
        return False
    log.info("%s: the GPUs of %s have other numbers", row.key, ", ".join(sorted(changed)))
    config, devices = given.at_start
    left = {name: options for name, options in devices.items() if name not in changed}
    await records.save(daemon, row, msgspec.structs.replace(given, at_start=(config, left)))
    stay = {_key(node) for numbers in found.values() for node in (*numbers.keeps, *numbers.gets)}
    for node in (node for numbers in changed.values() for node in numbers.loses):
        if _key(node) not in stay:
            await daemon.runtime.eject_device(row.volume, device_node(node))
    for node in (node for numbers in changed.values() for node in numbers.gets):
        await daemon.runtime.inject_device(row.volume, device_node(node))
    await _note(daemon, row, unknown | changed)
    return True


async def _note(daemon: "Daemon", row: Instance, found: dict[str, Numbers]) -> None:
    """Which files the devices have from now on."""
    notes = {
        f"volatile.{name}.{key}": value
        for name, numbers in found.items()
        for key, value in numbers.volatile.items()
    }
    if notes:
        await note(daemon, row, notes)


async def _numbers(daemon: "Daemon", row: Instance, has: Expanded) -> dict[str, Numbers]:
    """By device, of those that hold GPUs."""
    found = {}
    for name, options in sorted(has[1].items()):
        if options.get("type") == "gpu":
            seat = seat_of(daemon, row, has[0], name, options)
            driver = driver_of(daemon, seat)
            if seat.gpus and isinstance(driver, Renumbered):
                found[name] = await driver.numbers(seat)
    return found


def _key(node: Node) -> tuple[str, int, int]:
    return (node.path, node.major, node.minor)
