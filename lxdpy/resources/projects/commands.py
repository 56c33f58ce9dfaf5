"""Raft commands of projects."""

import msgspec

from cluster.errors import Forbidden, Invalid
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import DEFAULT, FEATURES, PROJECTS, Project, on
from lxdpy.resources.projects.permitted import check_change
from lxdpy.resources.storage_volumes.model import volumes


class CreateProject(Command, frozen=True, tag="project.create"):
    project: Project

    def apply(self, txn: Txn) -> None:
        name = self.project.name
        txn.insert(PROJECTS, name, self.project)
        furnish(txn, self.project)


class UpdateProject(Command, frozen=True, tag="project.update"):
    """A feature is turned on or off in an empty project only: else its instances would lose what they use."""

    name: str
    description: str
    config: dict[str, str]
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(PROJECTS, self.name)
        check_etag(self.etag, project_etag(before))
        changed = [f for f in FEATURES if on(before.config, f) != on(self.config, f)]
        if changed and self.name == DEFAULT:
            raise Invalid("You can't change the features of the default project", key=changed[0])
        if changed and not is_empty(txn, self.name):
            verb = "enabled" if on(self.config, changed[0]) else "disabled"
            raise Invalid(
                f'Project feature "{changed[0]}" cannot be {verb} on non-empty projects', key=changed[0]
            )
        after = Project(self.name, self.description, self.config)
        txn.put(PROJECTS, self.name, after)
        furnish(txn, after)
        check_change(txn, after)


class DeleteProject(Command, frozen=True, tag="project.delete"):
    name: str

    def apply(self, txn: Txn) -> None:
        txn.get(PROJECTS, self.name)
        if self.name == DEFAULT:
            raise Forbidden("The 'default' project cannot be deleted")
        if not is_empty(txn, self.name):
            raise Invalid("Only empty projects can be removed")
        txn.delete(PROJECTS, self.name)
        own = f"{self.name}/{DEFAULT}"
        if txn.find(PROFILES, own) is not None:
            txn.delete(PROFILES, own)


class RenameProject(Command, frozen=True, tag="project.rename"):
    """Only an empty project can be renamed, as in LXD."""

    name: str
    new: str

    def apply(self, txn: Txn) -> None:
        if self.name == DEFAULT:
            raise Forbidden("The 'default' project cannot be renamed")
        row = txn.get(PROJECTS, self.name)
        if not is_empty(txn, self.name):
            raise Invalid("Only empty projects can be renamed")
        txn.insert(PROJECTS, self.new, msgspec.structs.replace(row, name=self.new))
        txn.delete(PROJECTS, self.name)
        profile = txn.find(PROFILES, f"{self.name}/{DEFAULT}")
        if profile is not None:
            txn.delete(PROFILES, profile.key)
            moved = msgspec.structs.replace(profile, project=self.new)
            txn.put(PROFILES, moved.key, moved)


def furnish(txn: Txn, project: Project) -> None:
    """Give a project with profiles of its own a default one, and take it from one without."""
    profile = Profile(project.name, DEFAULT, f"Default LXD profile for project {project.name}")
    there = txn.find(PROFILES, profile.key) is not None
    if on(project.config, "features.profiles"):
        if not there:
            txn.insert(PROFILES, profile.key, profile)
    elif there:
        txn.delete(PROFILES, profile.key)


def is_empty(txn: Txn | State, project: str) -> bool:
    """Whether nothing but its default profile belongs to the project."""
    owned = (
        any(row.project == project for row in txn.rows(INSTANCES).values())
        or any(row.project == project for row in txn.rows(IMAGES).values())
        or any(row.project == project for row in txn.rows(NETWORKS).values())
        or any(volumes(txn, project=project))
    )
    profiles = txn.rows(PROFILES).values()
    return not owned and not any(p.project == project and p.name != DEFAULT for p in profiles)


def project_etag(project: Project) -> str:
    return etag_of(project.description, project.config)


COMMANDS: tuple[type[Command], ...] = (CreateProject, UpdateProject, DeleteProject, RenameProject)
