"""Devices of a running container: taken out and put in as its config changes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Invalid
from lxdpy.host.devices.driver import Attachment, Mount, Nic, Seat, Updating
from lxdpy.host.devices.nic_physical import pin_of
from lxdpy.host.network.move import move_into, move_out, set_up
from lxdpy.host.network.pin import pin
from lxdpy.host.undo import Undo
from lxdpy.resources.instances import forwards
from lxdpy.resources.instances.devices import driver_of, notes_of, seat_of, with_name
from lxdpy.resources.instances.finishing import finish
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.spec import device_node
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.storage_volumes.actions import settled

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Options = dict[str, str]
Change = tuple[Options, Options]


def leaving(old: Devices, new: Devices) -> list[str]:
    """Names of devices that go, or change: those come again."""
    return [name for name in sorted(old) if old[name] != new.get(name)]


def altered(daemon: "Daemon", row: Instance, had: Expanded, wanted: Expanded) -> list[str]:
    """Names of devices that change in what their drivers can change while the container has them."""
    found = []
    for name, new in sorted(wanted[1].items()):
        old = had[1].get(name)
        if old is None or old == new:
            continue
        driver = driver_of(daemon, seat_of(daemon, row, wanted[0], name, new))
        changed = {key for key in old | new if old.get(key) != new.get(key)}
        if isinstance(driver, Updating) and changed <= driver.updatable:
            found.append(name)
    return found


async def update(daemon: "Daemon", row: Instance, config: Config, name: str, change: Change) -> None:
    """Change such a device: (old options, new options)."""
    seat = seat_of(daemon, row, config, name, change[1])
    driver = driver_of(daemon, seat)
    if isinstance(driver, Updating):
        await driver.update(seat, change[0])


def is_gpu(options: Options) -> bool:
    return options.get("type") == "gpu"


async def plug(
    daemon: "Daemon", row: Instance, config: Config, name: str, options: Options
) -> dict[str, str]:
    """Start a device and give it to the container; returns what to remember.

    Nothing is left when it fails. Raises Invalid for a type that only comes with a start.
    """
    await settled(daemon, row.project, options)
    seat = seat_of(daemon, row, config, name, options)
    driver = driver_of(daemon, seat)
    if not driver.hotplug:
        raise Invalid(f'Device "{name}" cannot be added to a running instance', device=name)
    async with Undo() as undo:
        undo.push(driver.stop, seat)
        part = await driver.start(seat)
        part = with_name(part, seat, set(await daemon.runtime.addresses(row.volume)) if part.nics else set())
        undo.push(driver.stop, msgspec.structs.replace(seat, volatile=seat.volatile | part.volatile))
        await _give(daemon, row, seat, part, undo)
        await forwards.ensure(daemon, row, seat, driver)
        await failpoints.reach("device.plugged")
    return notes_of(name, part)


async def _give(daemon: "Daemon", row: Instance, seat: Seat, part: Attachment, undo: Undo) -> None:
    runtime = daemon.runtime
    for node in part.nodes:
        undo.push(runtime.eject_device, row.volume, device_node(node))
        await runtime.inject_device(row.volume, device_node(node))
    for mount in part.mounts:
        undo.push(runtime.eject, row.volume, mount.target)
        if mount.common:
            await runtime.eject(row.volume, mount.target)
        await _inject(daemon, row, mount)
    for nic in part.nics:
        await _hand_over(runtime.state(row.volume).init_pid, seat, nic, part.volatile)
    await finish(daemon, row, [part])


async def _hand_over(init: int, seat: Seat, nic: Nic, notes: dict[str, str]) -> None:
    if nic.lent:
        await asyncio.to_thread(pin, pin_of(seat), init, {**notes, "name": nic.name})
    await move_into(init, nic.link, nic.name)
    if nic.addresses or nic.gateways:
        await set_up(init, nic.name, nic.addresses, nic.gateways)


async def _inject(daemon: "Daemon", row: Instance, mount: Mount) -> None:
    if mount.filesystem:
        raise Invalid(f"A {mount.filesystem} file system cannot be added to a running instance")
    await daemon.runtime.inject(
        row.volume,
        Path(mount.source),
        mount.target,
        mapped=mount.idmapped,
        readonly=mount.readonly,
        recursive=mount.recursive,
        options=mount.options,
    )


async def unplug(daemon: "Daemon", row: Instance, has: tuple[Config, Devices], name: str) -> None:
    """Take a device of those the container `has` out of it, and stop it. Copes with one plugged by half.

    Files that another of its devices brought as well stay: `has` is without the devices unplugged before.
    """
    config, devices = has
    seat = seat_of(daemon, row, config, name, devices[name])
    driver = driver_of(daemon, seat)
    part = await driver.detach(seat)
    kept = await files_of_others(daemon, row, has, name) if part.nodes else set()
    for mount in part.mounts:
        if not (mount.common and mount.target in kept):
            await daemon.runtime.eject(row.volume, mount.target)
    for nic in part.nics:
        await move_out(daemon.runtime.state(row.volume).init_pid, nic.name, nic.link)
    for node in part.nodes:
        if node.path not in kept:
            await daemon.runtime.eject_device(row.volume, device_node(node))
    await driver.stop(seat)


async def files_of_others(
    daemon: "Daemon", row: Instance, has: tuple[Config, Devices], name: str
) -> set[str]:
    """Paths inside of the device files, and common mounts, that the container's other devices brought."""
    config, devices = has
    found: set[str] = set()
    for other, options in devices.items():
        if other != name:
            seat = seat_of(daemon, row, config, other, options)
            part = await driver_of(daemon, seat).detach(seat)
            found |= {node.path for node in part.nodes} | {one.target for one in part.mounts if one.common}
    return found
