"""`limits.network.priority`: how what a running container sends is served by the queues of its host."""

import hashlib

from lxdpy.host.network import nftables
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Config

KEY = "limits.network.priority"
WHOLE = ("macvlan", "physical")  # NICs without an end on the host
FAMILIES = ("bridge", "inet")


def priority_of(config: Config) -> int:
    """0 for none."""
    return int(config.get(KEY) or 0)


async def apply(row: Instance, has: Expanded) -> None:
    """As the container `has` it. Idempotent. Raises Unsupported without nft."""
    found = ends(has)
    if priority_of(has[0]) and found:
        await nftables.apply(nftables.priority_of(_name(row), priority_of(has[0]), found))
    else:
        await remove(row)


async def remove(row: Instance) -> None:
    """Idempotent."""
    for family in FAMILIES:
        await nftables.remove(family, _name(row))


def ends(has: Expanded) -> dict[str, str]:
    """Its NICs' ends on the host, and the MAC address inside of each."""
    config, devices = has
    found = {}
    for name, options in sorted(devices.items()):
        host_name = config.get(f"volatile.{name}.host_name", "")
        if options.get("type") == "nic" and host_name and options.get("nictype") not in WHOLE:
            found[host_name] = options.get("hwaddr") or config.get(f"volatile.{name}.hwaddr", "")
    return found


def _name(row: Instance) -> str:
    return f"prio_{hashlib.sha256(row.key.encode()).hexdigest()[:12]}"
