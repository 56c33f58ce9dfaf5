"""PURE: profiles applied. Later profiles win over earlier ones, the instance over all of them."""

from collections.abc import Iterable
from typing import Protocol

from cluster.errors import Error
from cluster.scheduler.selectors import expand_gpu
from cluster.state.txn import State, Txn
from lxdpy.resources.instances.model import PARKED
from lxdpy.resources.profiles.model import PROFILES, Config, Devices, Profile
from lxdpy.resources.projects.model import home


class Configured(Protocol):
    """An instance, or a snapshot of one."""

    @property
    def project(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def profiles(self) -> tuple[str, ...]: ...


def profiles_of(state: State | Txn, project: str, names: Iterable[str]) -> list[Profile]:
    """The named profiles as `project` sees them. Raises NotFound."""
    own = home(state, project, "profiles")
    return [state.get(PROFILES, f"{own}/{name}") for name in names]


def expanded(state: State | Txn, row: Configured) -> tuple[Config, Devices]:
    """Config and devices as they take effect; the short form `limits.gpu` has become a device.

    A parked instance has no GPUs until it is unparked or stopped.

    A profile that is gone is left out, a GPU device that clashes is not expanded: commands keep both from
    happening, and a list must not fail for one row.
    """
    own = home(state, row.project, "profiles")
    found = (state.find(PROFILES, f"{own}/{name}") for name in row.profiles)
    config, devices = merge([profile for profile in found if profile is not None], row.config, row.devices)
    try:
        devices = expand_gpu(config, devices)
    except Error:
        return config, devices
    if PARKED in row.config:
        devices = {name: options for name, options in devices.items() if options.get("type") != "gpu"}
    return config, devices


def expand(profiles: Iterable[Profile], config: Config, devices: Devices) -> tuple[Config, Devices]:
    """Config and devices as they would take effect. Raises Invalid or Conflict for a bad GPU short form."""
    all_config, all_devices = merge(profiles, config, devices)
    return all_config, expand_gpu(all_config, all_devices)


def merge(profiles: Iterable[Profile], config: Config, devices: Devices) -> tuple[Config, Devices]:
    all_config: Config = {}
    all_devices: Devices = {}
    for layer in (*profiles, None):
        all_config.update(layer.config if layer else config)
        all_devices.update(layer.devices if layer else devices)
    return all_config, all_devices
