"""Raft commands of profiles."""

import msgspec

from cluster.errors import AlreadyExists, Conflict, Forbidden
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.model import PROFILES, Config, Devices, Profile
from lxdpy.resources.projects.model import DEFAULT, home
from lxdpy.resources.projects.permitted import check_users


class CreateProfile(Command, frozen=True, tag="profile.create"):
    profile: Profile

    def apply(self, txn: Txn) -> None:
        if txn.find(PROFILES, self.profile.key) is not None:
            raise AlreadyExists("The profile already exists", profile=self.profile.name)
        txn.insert(PROFILES, self.profile.key, self.profile)
        check_users(txn, self.profile.project)


class UpdateProfile(Command, frozen=True, tag="profile.update"):
    key: str
    description: str
    config: Config
    devices: Devices
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(PROFILES, self.key)
        check_etag(self.etag, profile_etag(before))
        after = msgspec.structs.replace(
            before, description=self.description, config=self.config, devices=self.devices
        )
        txn.put(PROFILES, self.key, after)
        check_users(txn, after.project)


class RenameProfile(Command, frozen=True, tag="profile.rename"):
    key: str
    name: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(PROFILES, self.key)
        if before.name == DEFAULT:
            raise Forbidden('The "default" profile cannot be renamed')
        after = msgspec.structs.replace(before, name=self.name)
        if txn.find(PROFILES, after.key) is not None:
            raise AlreadyExists(f'Name "{self.name}" already in use', profile=self.name)
        txn.insert(PROFILES, after.key, after)
        txn.delete(PROFILES, self.key)
        for user in users(txn, before):
            names = tuple(self.name if name == before.name else name for name in user.profiles)
            txn.put(INSTANCES, user.key, msgspec.structs.replace(user, profiles=names))


class DeleteProfile(Command, frozen=True, tag="profile.delete"):
    key: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(PROFILES, self.key)
        if before.name == DEFAULT:
            raise Forbidden('The "default" profile cannot be deleted')
        if users(txn, before):
            raise Conflict("Profile is currently in use")
        txn.delete(PROFILES, self.key)


def users(txn: Txn | State, profile: Profile) -> list[Instance]:
    """Instances that have the profile, by key."""
    return [
        row
        for _, row in sorted(txn.rows(INSTANCES).items())
        if profile.name in row.profiles and home(txn, row.project, "profiles") == profile.project
    ]


def profile_etag(profile: Profile) -> str:
    return etag_of(profile.config, profile.description, profile.devices)


COMMANDS: tuple[type[Command], ...] = (CreateProfile, UpdateProfile, RenameProfile, DeleteProfile)
