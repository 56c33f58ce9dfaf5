"""Processes that a container takes beside it: there while it runs, and found again."""

from typing import TYPE_CHECKING

from lxdpy.host.devices.driver import DeviceDriver, Forwarding, Seat
from lxdpy.host.devices.proxy import file_of
from lxdpy.host.proxy import control
from lxdpy.resources.instances import interception
from lxdpy.resources.instances.devices import driver_of, seat_of
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


async def ensure_all(daemon: "Daemon", row: Instance, has: Expanded) -> None:
    """Have those of all devices that the container `has`, and of its system calls.

    Raises CompanionFailed for the first that cannot be.
    """
    config, devices = has
    for name, options in sorted(devices.items()):
        if options.get("type") in daemon.devices.forwarding:
            seat = seat_of(daemon, row, config, name, options)
            await ensure(daemon, row, seat, driver_of(daemon, seat))
    await interception.ensure(daemon, row, config)


async def ensure(daemon: "Daemon", row: Instance, seat: Seat, driver: DeviceDriver) -> None:
    """Have that of one device, if it takes one; should it end, the instance is looked at again."""
    forward = driver.forward(seat) if isinstance(driver, Forwarding) else None
    if forward is None:
        return
    pid = await control.ensure(file_of(seat), forward, daemon.runtime.state(row.volume).init_pid)
    daemon.device_watch.watch_process(row.key, pid)
