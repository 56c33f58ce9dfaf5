"""PURE: whether a project has what it may have: its limits, and what a restricted one is kept from.

Looked at in the apply of all that changes an instance, a profile or the project itself, so that no two
changes at one time can have together what neither could alone. A project without such keys costs nothing.
"""

from collections.abc import Iterator

from cluster.errors import Forbidden
from cluster.state.txn import State, Txn
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.projects.limits import Whole, check_limits, excesses, gpus, instances_of, limit_of
from lxdpy.resources.projects.model import PROJECTS, Project, home, on
from lxdpy.resources.projects.restrictions import Rules, Subject, check_subject


def check_project(txn: Txn, name: str) -> None:
    """Raises Forbidden if the project has now what it may not have."""
    project = txn.find(PROJECTS, name)
    if project is None or not _binds(project):
        return
    wholes = instances_of(txn, name)
    check_limits(txn, project, wholes)
    check_restrictions(txn, project, wholes)


def check_users(txn: Txn, profiles: str) -> None:
    """Of all projects that use the profiles of project `profiles`."""
    for name in sorted(txn.rows(PROJECTS)):
        if home(txn, name, "profiles") == profiles:
            check_project(txn, name)


def check_gpus(txn: Txn, name: str) -> None:
    """Only how many GPUs it holds: for an instance that starts."""
    project = txn.find(PROJECTS, name)
    if project is not None and 0 <= (most := limit_of(project, "gpu")) < gpus(txn, name):
        raise Forbidden(
            f'Reached maximum aggregate value "{most}" for "limits.gpu" in project "{name}"', key="limits.gpu"
        )


def check_change(txn: Txn, project: Project) -> None:
    """Of the project itself. Raises Forbidden when what it has does not fit its new config."""
    if not _binds(project):
        return
    wholes = instances_of(txn, project.name)
    for over in excesses(txn, project, wholes):
        key, what = f"limits.{over.noun}", f'current total is "{over.used_text}"'
        if over.noun in ("instances", "containers"):
            what = f'there currently are {over.used} total {over.noun} in project "{project.name}"'
        raise Forbidden(
            f'Can\'t change {key} in project "{project.name}": "{key}" is too low: {what}', key=key
        )
    check_restrictions(txn, project, wholes)


def check_restrictions(txn: Txn, project: Project, wholes: list[Whole]) -> None:
    if not on(project.config, "restricted"):
        return
    rules = Rules(project)
    for subject in (*_instances(wholes), *_profiles(txn, project.name)):
        check_subject(rules, subject)


def check_target(state: State, project: str, target: str) -> None:
    """Raises Forbidden where the project may not choose a member, or not of that `@group`. Admins may."""
    row = state.find(PROJECTS, project)
    if row is None or not target or not on(row.config, "restricted"):
        return
    rules = Rules(row)
    groups = rules.items("cluster.groups")
    if target.startswith("@") and target[1:] in groups:
        return
    if groups or not rules.allows("cluster.target"):
        raise Forbidden("This project doesn't allow cluster member targeting", key="target")


def _binds(project: Project) -> bool:
    return on(project.config, "restricted") or any(key.startswith("limits.") for key in project.config)


def _instances(wholes: list[Whole]) -> Iterator[Subject]:
    for one in wholes:
        yield Subject(f'container "{one.name}"', one.config, one.devices)


def _profiles(txn: Txn, project: str) -> Iterator[Subject]:
    for _, row in sorted(txn.rows(PROFILES).items()):
        if row.project == project:
            yield Subject(f'profile "{row.name}"', row.config, row.devices)
