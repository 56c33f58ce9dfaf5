"""Profiles: rows and bodies."""

import msgspec

from cluster.state.table import Stored, Table

Config = dict[str, str]
Devices = dict[str, dict[str, str]]


class Profile(Stored, frozen=True):
    """Key: "project/name"."""

    project: str
    name: str
    description: str = ""
    config: Config = {}
    devices: Devices = {}

    @property
    def key(self) -> str:
        return f"{self.project}/{self.name}"


PROFILES: Table[Profile] = Table("profiles", Profile)


class ProfilesPost(msgspec.Struct):
    name: str = ""
    description: str = ""
    config: Config | None = None
    devices: Devices | None = None


class ProfilePut(msgspec.Struct):
    description: str | None = None
    config: Config | None = None
    devices: Devices | None = None
