"""Device drivers by type; `nic` and `gpu` have several, told apart by `nictype` and `gputype`."""

from collections.abc import Iterable

from cluster.errors import Invalid
from lxdpy.host.devices.disk import Disk
from lxdpy.host.devices.driver import Changing, DeviceDriver, Forwarding, Options
from lxdpy.host.devices.infiniband import Infiniband
from lxdpy.host.devices.nic_bridged import NicBridged
from lxdpy.host.devices.nic_macvlan import NicMacvlan
from lxdpy.host.devices.nic_p2p import NicP2p
from lxdpy.host.devices.nic_physical import NicPhysical
from lxdpy.host.devices.nic_routed import NicRouted
from lxdpy.host.devices.none import Nothing
from lxdpy.host.devices.proxy import Proxy
from lxdpy.host.devices.unix_file import UnixBlock, UnixChar
from lxdpy.host.devices.unix_hotplug import UnixHotplug
from lxdpy.host.devices.usb import Usb
from lxdpy.host.network.driver import NetworkDriver
from lxdpy.host.paths import HostRoot

KINDS = {"nic": ("nictype", ""), "gpu": ("gputype", "physical")}
"""Option that names the kind within a type, and what it is when unset."""

UNOFFERED = {
    "tpm": "no TPM is emulated for instances",
    "pci": "whole PCI devices are only for virtual machines; `gpu` and `nic` lend what a container can use",
    "nic/sriov": "lend the interface of a virtual function by nictype=physical",
    "nic/ipvlan": "nictype=routed gives fixed addresses in the parent's network too",
    "nic/ovn": "there are no OVN networks",
    "gpu/mdev": "mediated devices are only for virtual machines",
    "gpu/sriov": "virtual functions of GPUs are only for virtual machines",
}
"""What LXD has beside ours, and why we have not, or what does the same."""

NETWORK_NICS = {"bridge": "bridged"}
"""Kind of NIC on a managed network, by the network's type."""


class Devices:
    """The device drivers of this host."""

    def __init__(self, drivers: Iterable[DeviceDriver]) -> None:
        self._drivers = {driver.type: driver for driver in drivers}
        # Asked of each device at each start: a protocol is slow to ask.
        self.forwarding = _types(driver for driver in self.drivers if isinstance(driver, Forwarding))
        self.changing = _types(driver for driver in self.drivers if isinstance(driver, Changing))

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted({name.partition("/")[0] for name in self._drivers}))

    @property
    def drivers(self) -> tuple[DeviceDriver, ...]:
        """All, by type: for the page of all options."""
        return tuple(self._drivers[name] for name in sorted(self._drivers))

    def driver_for(self, options: Options, network_type: str = "bridge") -> DeviceDriver:
        """`network_type`: of the managed network that the option "network" names. Raises Invalid."""
        type_ = options.get("type", "")
        if type_ not in self.types:
            known = ", ".join(self.types)
            raise Invalid(f'Unsupported device type "{type_}"{_why(type_)}; known: {known}', key="type")
        if type_ not in KINDS:
            return self._drivers[type_]
        option, default = KINDS[type_]
        kind = options.get(option) or default
        if type_ == "nic" and not kind and options.get("network"):
            kind = NETWORK_NICS.get(network_type, network_type)
        if driver := self._drivers.get(f"{type_}/{kind}"):
            return driver
        kinds = ", ".join(sorted(name.partition("/")[2] for name in self._drivers if name.startswith(type_)))
        why = _why(f"{type_}/{kind}")
        raise Invalid(f'Unsupported {option} "{kind}" of a {type_} device{why}; known: {kinds}', key=option)


def _why(name: str) -> str:
    return f" ({UNOFFERED[name]})" if name in UNOFFERED else ""


def _types(drivers: Iterable[DeviceDriver]) -> frozenset[str]:
    return frozenset(driver.type.partition("/")[0] for driver in drivers)


def devices(networks: NetworkDriver, *others: DeviceDriver, root: HostRoot | None = None) -> Devices:
    """The drivers of every host, and `others` (those of GPUs); `root` is where hardware is looked for."""
    root = root or HostRoot()
    nics = (NicBridged(networks), NicMacvlan(), NicP2p(), NicPhysical(), NicRouted(HostRoot()))
    files = (Infiniband(root), UnixBlock(), UnixChar(), UnixHotplug(root), Usb(root))
    return Devices([Disk(), Nothing(), Proxy(), *nics, *files, *others])
