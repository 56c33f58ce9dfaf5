"""Raft commands of the server's configuration, and the rows every cluster begins with."""

from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import DEFAULT, FEATURES, PROJECTS, Project
from lxdpy.resources.server.model import SETTINGS, Setting


class CreateDefaults(Command, frozen=True, tag="server.defaults"):
    """The project and profile "default". Repeating it changes nothing."""

    def apply(self, txn: Txn) -> None:
        if txn.find(PROJECTS, DEFAULT) is None:
            config = dict.fromkeys(FEATURES, "true")
            txn.insert(PROJECTS, DEFAULT, Project(DEFAULT, "Default LXD project", config))
        profile = Profile(DEFAULT, DEFAULT, "Default LXD profile")
        if txn.find(PROFILES, profile.key) is None:
            txn.insert(PROFILES, profile.key, profile)


class ConfigureServer(Command, frozen=True, tag="server.configure"):
    """Set and unset settings; "" unsets. `own` are those of the member that proposes."""

    settings: dict[str, str]
    member: str = ""  # id
    own: dict[str, str] = {}
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        check_etag(self.etag, settings_etag(txn, self.member))
        changes = {**self.settings, **{f"{self.member}/{key}": value for key, value in self.own.items()}}
        for key, value in sorted(changes.items()):
            if value:
                txn.put(SETTINGS, key, Setting(value))
            elif txn.find(SETTINGS, key) is not None:
                txn.delete(SETTINGS, key)


def forget_member(txn: Txn, member: str) -> None:
    """Its own settings are gone with it."""
    for key in list(txn.rows(SETTINGS)):
        if key.startswith(f"{member}/"):
            txn.delete(SETTINGS, key)


def settings_of(state: State | Txn, member: str) -> dict[str, str]:
    """The cluster's settings and those of one member, as GET /1.0 at that member shows them."""
    own = f"{member}/"
    seen = {}
    for key, row in sorted(state.rows(SETTINGS).items()):
        if "/" not in key:
            seen[key] = row.value
        elif key.startswith(own):
            seen[key.removeprefix(own)] = row.value
    return seen


def settings_etag(state: State | Txn, member: str) -> str:
    return etag_of(settings_of(state, member))


COMMANDS: tuple[type[Command], ...] = (CreateDefaults, ConfigureServer)
