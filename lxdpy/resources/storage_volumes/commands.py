"""Raft commands of custom storage volumes."""

import msgspec

from cluster.errors import AlreadyExists, Conflict, Invalid
from cluster.membership.model import MEMBERS, name_of
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import Txn
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.profiles.model import PROFILES, Config
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.projects.permitted import check_project
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.disks import instances_with, profiles_with, renamed, users
from lxdpy.resources.storage_volumes.model import VOLUMES, Status, StorageVolume, volumes

replace = msgspec.structs.replace


class CreateVolume(Command, frozen=True, tag="volume.create"):
    """Reserve the name. Its owner makes it, and says when it is there; one that dies before removes it."""

    volume: StorageVolume

    def apply(self, txn: Txn) -> None:
        reserve(txn, replace(self.volume, created_at=txn.now), "Creating")


def reserve(txn: Txn, new: StorageVolume, status: Status) -> None:
    """Raises NotFound, Invalid where its pool is not, AlreadyExists, Forbidden."""
    txn.get(PROJECTS, new.project)
    txn.get(MEMBERS, new.location)
    pool = txn.get(POOLS, new.pool)
    if pool.status != "Created" or new.location not in pool.members:
        raise Invalid(f"Storage pool {pool.name} is not on {name_of(txn, new.location)}", pool=pool.name)
    _refuse_taken(txn, new)
    txn.insert(VOLUMES, new.id, replace(new, status=status))
    check_project(txn, new.project)


class FinishVolume(Command, frozen=True, tag="volume.finish"):
    """It is there, and may be used."""

    id: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(VOLUMES, self.id)
        if before.status == "Deleting":
            raise Conflict(f"Storage volume is being deleted: {before.name}", volume=before.name)
        txn.put(VOLUMES, self.id, replace(before, status="Ready"))


class UpdateVolume(Command, frozen=True, tag="volume.update"):
    id: str
    description: str
    config: Config
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(VOLUMES, self.id)
        check_etag(self.etag, volume_etag(before))
        txn.put(VOLUMES, self.id, replace(before, description=self.description, config=self.config))
        check_project(txn, before.project)


class RenameVolume(Command, frozen=True, tag="volume.rename"):
    """What has it as a disk goes on having it. Not while an instance that has it runs, as in LXD."""

    id: str
    name: str
    project: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(VOLUMES, self.id)
        after = replace(before, name=self.name, project=self.project)
        txn.get(PROJECTS, self.project)
        _refuse_taken(txn, after)
        if self.project != before.project and users(txn, before):
            raise Invalid("The storage volume is still in use", volume=before.name)
        having = list(instances_with(txn, before))
        if any(row.status in ("Running", "Frozen") for row in having):
            raise Invalid("Volume is still in use by running instances", volume=before.name)
        for row in having:
            devices = renamed(row.devices, before, self.name)
            txn.put(INSTANCES, row.key, replace(row, devices=devices))
        if (
            len(list(volumes(txn, before.pool, before.project, before.name))) == 1
        ):  # else others go on meaning it
            for profile in list(profiles_with(txn, before)):
                devices = renamed(profile.devices, before, self.name)
                txn.put(PROFILES, profile.key, replace(profile, devices=devices))
        txn.put(VOLUMES, self.id, after)
        check_project(txn, self.project)


class DropVolume(Command, frozen=True, tag="volume.drop"):
    """Nobody may use it any more; its owner removes it from disk when it has applied this. Repeating it
    changes nothing.
    """

    id: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(VOLUMES, self.id)
        if before.status == "Ready" and users(txn, before):
            raise Invalid("The storage volume is still in use", volume=before.name)
        txn.put(VOLUMES, self.id, replace(before, status="Deleting"))


class ForgetVolume(Command, frozen=True, tag="volume.forget"):
    """It is gone from disk. Repeating it changes nothing."""

    id: str

    def apply(self, txn: Txn) -> None:
        if txn.find(VOLUMES, self.id) is not None:
            txn.delete(VOLUMES, self.id)


def held_by(txn: Txn, member: str) -> list[str]:
    """Names of the member's volumes."""
    return [row.name for row in volumes(txn, member=member)]


def forget_member(txn: Txn, member: str) -> None:
    """Its volumes are gone with it."""
    for row in list(volumes(txn, member=member)):
        txn.delete(VOLUMES, row.id)


def volume_etag(row: StorageVolume) -> str:
    return etag_of(row.name, "custom", row.config, row.description)


def _refuse_taken(txn: Txn, new: StorageVolume) -> None:
    taken = volumes(txn, new.pool, new.project, new.name, new.location)
    if any(row.id != new.id for row in taken):
        raise AlreadyExists("Volume by that name already exists", volume=new.name)


COMMANDS: tuple[type[Command], ...] = (
    CreateVolume,
    FinishVolume,
    UpdateVolume,
    RenameVolume,
    DropVolume,
    ForgetVolume,
)
