"""Network drivers by type."""

from collections.abc import Iterable
from pathlib import Path

from cluster.errors import Invalid
from lxdpy.host.network.bridge import Bridge
from lxdpy.host.network.driver import NetworkDriver
from lxdpy.host.network.fake import FakeBridge
from lxdpy.host.paths import HostRoot


class Networks:
    """The drivers of this host."""

    def __init__(self, drivers: Iterable[NetworkDriver]) -> None:
        self._drivers = {driver.type: driver for driver in drivers}

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted(self._drivers))

    def made(self) -> dict[str, str]:
        """The networks that this host has something of: name to type."""
        return {name: driver.type for driver in self._drivers.values() for name in driver.made()}

    def driver_for(self, type_: str) -> NetworkDriver:
        """Raises Invalid, naming the types there are."""
        if type_ in self._drivers:
            return self._drivers[type_]
        raise Invalid(f'Unsupported network type "{type_}"; known: {", ".join(self.types)}', key="type")


def networks(lxd_dir: Path, root: HostRoot | None = None) -> Networks:
    """Those that act on this host; files below `lxd_dir`/networks."""
    return Networks([Bridge(lxd_dir / "networks", root or HostRoot())])


def fake_networks() -> Networks:
    """Those that only remember: no root needed, nothing is touched."""
    return Networks([FakeBridge()])
