"""An instance's devices on its owner's host: started before the container, stopped after it."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error
from cluster.state.txn import State
from lxdpy.host.devices.disk import is_root
from lxdpy.host.devices.driver import Attachment, DeviceDriver, Seat
from lxdpy.host.devices.nic import fixed_addresses
from lxdpy.host.network.driver import Network as HostNetwork
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.spec import idmap_of
from lxdpy.resources.networks.actions import host_network
from lxdpy.resources.networks.model import NETWORKS, Network
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.model import DEFAULT, home
from lxdpy.resources.storage_volumes.actions import disk_of, settled

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def seat_of(
    daemon: "Daemon",
    row: Instance,
    config: Config,
    name: str,
    options: Mapping[str, str],
    *,
    cold: bool = False,
) -> Seat:
    """What the driver of one device may know. Raises NotFound for a managed network that is not there."""
    idmap = idmap_of(row, config)
    mark = f"volatile.{name}."
    network = network_of(daemon.state, row.project, options)
    source, unmapped = disk_of(daemon, row.project, options)
    if is_root(options):
        source = str(daemon.root / "storage-pools" / options.get("pool", ""))
    return Seat(
        instance=row.key,
        name=name,
        options=dict(options),
        volatile={k.removeprefix(mark): v for k, v in config.items() if k.startswith(mark)},
        network=host_network(network, daemon.member_id) if network else None,
        folder=str(daemon.root / "devices" / row.volume),
        source=source,
        unmapped=unmapped,
        addresses=addresses_of(daemon, row) if options.get("type") == "proxy" else (),
        gpus=granted(config).get(name, ()),
        idmap_base=idmap.base if idmap else 0,
        idmap_size=idmap.size if idmap else 0,
        privileged=idmap is None,
        cold=cold,
    )


def addresses_of(daemon: "Daemon", row: Instance) -> tuple[str, ...]:
    """Fixed addresses of the instance's NICs, by the names of these."""
    return fixed_addresses(expanded(daemon.state, row)[1])


def network_of(state: State, project: str, options: Mapping[str, str]) -> Network | None:
    """The managed network of a NIC: named by it, or the bridge that is its parent. Raises NotFound."""
    if options.get("type") != "nic":
        return None
    if name := options.get("network"):
        return state.get(NETWORKS, f"{home(state, project, 'networks')}/{name}")
    parent = state.find(NETWORKS, f"{DEFAULT}/{options.get('parent', '')}")
    return parent if parent is not None and parent.type == "bridge" else None


def driver_of(daemon: "Daemon", seat: Seat) -> DeviceDriver:
    return daemon.devices.driver_for(seat.options, seat.network.type if seat.network else "bridge")


async def start(
    daemon: "Daemon", row: Instance, config: Config, devices: Devices
) -> tuple[list[Attachment], dict[str, str]]:
    """Start all, in the order of their names; what to attach, and what to remember (full volatile keys).

    If one fails, `stop` is for the caller to call, for all.
    """
    attached: list[Attachment] = []
    notes: dict[str, str] = {}
    taken = {options["name"] for options in devices.values() if options.get("name")}
    for name, options in sorted(devices.items()):
        await settled(daemon, row.project, options)
        seat = seat_of(daemon, row, config, name, options, cold=True)
        try:
            part = with_name(await driver_of(daemon, seat).start(seat), seat, taken)
        except Error as failure:
            why = f'Failed to start device "{name}": {failure.message}'
            raise type(failure)(why, **failure.facts) from failure
        attached.append(part)
        notes |= notes_of(name, part)
    return attached, notes


def notes_of(device: str, part: Attachment) -> dict[str, str]:
    """What a started device is to be remembered by, as config keys."""
    return {f"volatile.{device}.{key}": value for key, value in part.volatile.items()}


def with_name(part: Attachment, seat: Seat, taken: set[str]) -> Attachment:
    """With a name for a NIC that has none: the one it had before, or the first `ethN` not in `taken`.

    The name is added to `taken`, and to what is remembered of the device.
    """
    if not part.nics or part.nics[0].name:
        return part
    known = seat.volatile.get("name", "")
    name = known if known and known not in taken else next(_free(taken))
    taken.add(name)
    nics = (msgspec.structs.replace(part.nics[0], name=name), *part.nics[1:])
    return msgspec.structs.replace(part, nics=nics, volatile={**part.volatile, "name": name})


def _free(taken: Collection[str]) -> Iterator[str]:
    number = 0
    while True:
        if f"eth{number}" not in taken:
            yield f"eth{number}"
        number += 1


async def stop(daemon: "Daemon", row: Instance, config: Config, devices: Devices) -> list[Error]:
    """Stop all that can be; the failures, for the log: a stopped container must not seem to run."""
    failures = []
    for name, options in sorted(devices.items(), reverse=True):
        try:
            seat = seat_of(daemon, row, config, name, options)
            await driver_of(daemon, seat).stop(seat)
        except Error as failure:
            failures.append(failure)
    return failures


async def forget(daemon: "Daemon", row: Instance, devices: Devices) -> None:
    """Free the addresses that are kept for a stopped instance: it goes, or gets another name."""
    for name, options in sorted(devices.items()):
        network = network_of(daemon.state, row.project, options)
        if network is not None:
            known: HostNetwork = host_network(network, daemon.member_id)
            await daemon.networks.driver_for(network.type).remove_host(known, row.key, name)
