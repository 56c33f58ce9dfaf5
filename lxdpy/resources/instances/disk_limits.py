"""How fast a running container may use its disks: set anew whenever one comes, goes or changes."""

from typing import TYPE_CHECKING

from lxdpy.host.devices.disk import LIMITS, Disk
from lxdpy.host.throttle import Throttle
from lxdpy.resources.instances.devices import driver_of, seat_of
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def are_limited(devices: Devices) -> bool:
    return any(options.get(key) for options in devices.values() for key in LIMITS if is_disk(options))


def is_disk(options: dict[str, str]) -> bool:
    return options.get("type") == "disk"


async def limit(daemon: "Daemon", row: Instance, has: Expanded) -> None:
    """As the disks that the container `has` say. Raises Unsupported where the host cannot limit any."""
    found: list[Throttle] = []
    for name, options in sorted(has[1].items()):
        seat = seat_of(daemon, row, has[0], name, options)
        driver = driver_of(daemon, seat)
        if isinstance(driver, Disk):
            found += await driver.throttles(seat)
    await daemon.runtime.throttle(row.volume, found)
