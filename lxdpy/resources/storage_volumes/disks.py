"""PURE: custom volumes as disks of instances: which one a device means, and who uses one."""

from collections.abc import Iterator, Mapping

from cluster.errors import Invalid
from cluster.membership.model import name_of
from cluster.state.txn import State, Txn
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.model import PROFILES, Devices, Profile
from lxdpy.resources.projects.model import home
from lxdpy.resources.storage_volumes.model import StorageVolume, volumes
from lxdpy.resources.wire import url

FEATURE = "storage.volumes"


def names_volume(options: Mapping[str, str]) -> str:
    """The name of the custom volume that a device is; "" for other devices."""
    if options.get("type") != "disk" or not options.get("pool"):
        return ""
    return options.get("source", "").removeprefix("custom/")


def volume_of_disk(
    state: State | Txn, project: str, options: Mapping[str, str], member: str
) -> StorageVolume | None:
    """What the device means on that member; None if that has no such volume."""
    own = home(state, project, FEATURE)
    return next(volumes(state, options["pool"], own, names_volume(options), member), None)


def members_with(state: State, project: str, devices: Devices) -> dict[str, tuple[str, ...]]:
    """By volume in words, the names of the members that have it. For placement."""
    own = home(state, project, FEATURE)
    disks = ((options["pool"], name) for options in devices.values() if (name := names_volume(options)))
    return {
        f'storage volume "{name}" in pool "{pool}"': tuple(
            name_of(state, row.location) for row in volumes(state, pool, own, name) if row.status == "Ready"
        )
        for pool, name in disks
    }


def check_disks(state: State | Txn, row: Instance) -> None:
    """Raises Invalid unless the instance's member has all volumes that it names, none on its way out."""
    for device, options in sorted(expanded(state, row)[1].items()):
        if not names_volume(options):
            continue
        found = volume_of_disk(state, row.project, options, row.location)
        if found is None or found.status != "Ready":
            why = f"Storage volume not found on member {name_of(state, row.location)}"
            raise Invalid(
                f'Device validation failed for "{device}": Failed loading custom volume: {why}',
                device=device,
                volume=names_volume(options),
            )


def users(state: State | Txn, volume: StorageVolume) -> list[str]:
    """URL paths of the instances and profiles that have it as a disk, sorted."""
    used = [url("instances", row.name, project=row.project) for row in instances_with(state, volume)]
    used += [url("profiles", row.name, project=row.project) for row in profiles_with(state, volume)]
    return sorted(used)


def instances_with(state: State | Txn, volume: StorageVolume) -> Iterator[Instance]:
    for _, row in sorted(state.rows(INSTANCES).items()):
        if row.location == volume.location and _has(state, row.project, expanded(state, row)[1], volume):
            yield row


def profiles_with(state: State | Txn, volume: StorageVolume) -> Iterator[Profile]:
    for _, row in sorted(state.rows(PROFILES).items()):
        if _has(state, row.project, row.devices, volume):
            yield row


def renamed(devices: Devices, volume: StorageVolume, name: str) -> Devices:
    """With the volume's new name where they have the old one."""
    return {
        device: {**options, "source": name} if _is(options, volume) else options
        for device, options in devices.items()
    }


def _has(state: State | Txn, project: str, devices: Devices, volume: StorageVolume) -> bool:
    named = any(_is(options, volume) for options in devices.values())
    return named and home(state, project, FEATURE) == volume.project


def _is(options: Mapping[str, str], volume: StorageVolume) -> bool:
    return options.get("pool") == volume.pool and names_volume(options) == volume.name
