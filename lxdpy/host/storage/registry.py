"""The storage drivers there are."""

from cluster.errors import Invalid
from lxdpy.config.key import KeyTable
from lxdpy.config.pool import POOL
from lxdpy.config.volume import VOLUME
from lxdpy.host.storage.btrfs import Btrfs
from lxdpy.host.storage.dir import Dir
from lxdpy.host.storage.driver import Mounts, Pool, StorageDriver

DRIVERS: dict[str, type[StorageDriver]] = {driver.name: driver for driver in (Dir, Btrfs)}


def driver_type(name: str) -> type[StorageDriver]:
    """Raises Invalid for a driver there is not."""
    if found := DRIVERS.get(name):
        return found
    raise Invalid(f'Unknown storage driver "{name}": there are {", ".join(DRIVERS)}', driver=name)


def open_driver(name: str, pool: Pool, mounts: Mounts) -> StorageDriver:
    """The driver object of one pool, to be kept as long as the daemon runs; does not touch the disk."""
    return driver_type(name)(pool, mounts)


def pool_keys(name: str) -> KeyTable:
    """All a pool of that driver takes."""
    return POOL | driver_type(name).pool_keys


def volume_keys(name: str) -> KeyTable:
    """All a volume in such a pool takes."""
    return VOLUME | driver_type(name).volume_keys
