"""What is refused before anything is recorded: config, devices, root disk, GPUs that are nowhere."""

import re
from collections import Counter
from typing import TYPE_CHECKING

from cluster.errors import Error, Invalid, Unsupported
from cluster.scheduler.place import require_known
from cluster.scheduler.types import Ask
from cluster.state.txn import State
from lxdpy.config.instance import INSTANCE
from lxdpy.config.key import UnknownKey
from lxdpy.host.devices.disk import is_root
from lxdpy.host.devices.proxy import check_nat_targets
from lxdpy.resources.instances import nvidia
from lxdpy.resources.instances.claims import views
from lxdpy.resources.instances.devices import network_of
from lxdpy.resources.instances.ids import check_ids
from lxdpy.resources.instances.interception import check_mounts
from lxdpy.resources.instances.spec import raw_lines
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.storage_pools.model import POOLS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

UNIQUE = (("nic", "name"), ("disk", "path"), ("unix-char", "path"), ("unix-block", "path"))
DEVICE_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,63}")


def check_config(config: Config) -> None:
    """Raises Invalid, naming the key."""
    INSTANCE.check(config)
    raw_lines(config.get("raw.lxc", ""))
    check_ids(config)
    check_mounts(config)
    nvidia.wanted(config)


def check_devices(
    daemon: "Daemon", devices: Devices, project: str = "default", *, whole: bool = True
) -> None:
    """Raises Invalid naming the device; Unsupported for what may come with a later version.

    `whole`: they are all of an instance's, not a profile's.
    """
    for name, options in sorted(devices.items()):
        try:
            _check_device(daemon, name, options, project)
        except Unsupported as missing:
            raise Unsupported(f'Device "{name}": {missing.message}', **missing.facts) from None
        except Error as wrong:
            message = f'Device validation failed for "{name}": {wrong.message}'
            raise Invalid(message, **wrong.facts) from None
    _check_together(devices)
    if whole:
        check_nat_targets(devices)


def _check_device(daemon: "Daemon", name: str, options: dict[str, str], project: str) -> None:
    if not DEVICE_NAME.fullmatch(name):
        raise Invalid(
            "names have 1 to 64 letters, digits, dots, dashes and underscores, not a dot first", key=name
        )
    network = network_of(daemon.state, project, options)
    if network is not None and network.status == "Pending":
        raise Invalid(f"Network {network.name} is pending", network=network.name)
    driver = daemon.devices.driver_for(options, network.type if network else "bridge")
    try:
        driver.check(options)
    except UnknownKey as unknown:
        key = unknown.facts["key"]
        known = ", ".join(one.name for one in driver.options.keys)
        message = f'Unknown option "{key}={options[key]}"; a {driver.options.name} takes: {known}'
        raise Invalid(message, key=key) from None
    pool = options.get("pool", "") if options.get("type") == "disk" else ""
    if pool and pool not in daemon.state.rows(POOLS):
        raise Invalid(f'The "{pool}" storage pool doesn\'t exist', key="pool", value=pool)


def _check_together(devices: Devices) -> None:
    roots = [name for name, options in devices.items() if is_root(options)]
    if len(roots) > 1:
        raise Invalid(f"More than one root disk: {', '.join(sorted(roots))}", key="devices")
    for type_, option in UNIQUE:
        taken = Counter(d[option] for d in devices.values() if d.get("type") == type_ and d.get(option))
        for value, number in taken.items():
            if number > 1:
                raise Invalid(f'Several {type_} devices have the {option} "{value}"', key="devices")


def root_pool(state: State, devices: Devices) -> str:
    """The pool of the root disk. Raises Invalid when there is none, or it is not ready."""
    name = named_pool(devices)
    if not name:
        raise Invalid("Invalid devices: No root device could be found", key="devices")
    pool = state.get(POOLS, name)
    if pool.status != "Created":
        raise Invalid(f"Storage pool {pool.name} is {pool.status.lower()}", pool=pool.name)
    return pool.name


def named_pool(devices: Devices) -> str:
    """What the root disk says its pool is; "" without a root disk."""
    return next((o["pool"] for o in devices.values() if is_root(o) and o.get("pool")), "")


def check_gpus(daemon: "Daemon", ask: Ask) -> None:
    """Raises NoSuchGpu for a selector that no GPU of any member fits, free or not."""
    if ask.gpus:
        require_known(ask.gpus, views(daemon.state, lambda _: True))
