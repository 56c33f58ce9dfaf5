"""/1.0/projects."""

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from cluster.errors import Forbidden, Invalid
from cluster.state.txn import State
from lxdpy.config.project import PROJECT
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.projects.commands import (
    CreateProject,
    DeleteProject,
    RenameProject,
    UpdateProject,
    project_etag,
)
from lxdpy.resources.projects.limits import instances_of, limit_of, usage
from lxdpy.resources.projects.model import DEFAULT, PROJECTS, Project, ProjectPut, ProjectsPost
from lxdpy.resources.storage_volumes.model import volume_url, volumes
from lxdpy.resources.wire import check_name, url
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/projects")

Usage = dict[str, int]  # "Limit" and "Usage", spelt as LXD does

# What a new project has of its own unless told otherwise, as in LXD.
DEFAULTS = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}


@routes.on("GET", entitlement="can_view")
async def list_projects(call: Call[None]) -> web.Response:
    rows = [row for name, row in sorted(call.state.rows(PROJECTS).items()) if call.identity.sees(name)]
    if call.recursive:
        return sync([wire(call.state, row) for row in rows])
    return sync([url("projects", row.name) for row in rows])


@routes.on("POST", body=ProjectsPost, entitlement="admin")
async def create_project(call: Call[ProjectsPost]) -> web.Response:
    check_project_name(call.body.name)
    config = {**DEFAULTS, **PROJECT.checked(call.body.config)}
    await call.store.propose(CreateProject(Project(call.body.name, call.body.description, config)))
    return sync(location=url("projects", call.body.name))


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_project(call: Call[None]) -> web.Response:
    row = found(call)
    return sync(wire(call.state, row), etag=project_etag(row))


@routes.on("PUT", "/{name}", body=ProjectPut, entitlement="admin")
async def update_project(call: Call[ProjectPut]) -> web.Response:
    row = call.state.get(PROJECTS, call.path("name"))
    config = PROJECT.checked(call.body.config)
    await call.store.propose(UpdateProject(row.name, call.body.description or "", config, call.etag))
    return sync()


@routes.on("PATCH", "/{name}", body=ProjectPut, entitlement="admin")
async def patch_project(call: Call[ProjectPut]) -> web.Response:
    row = call.state.get(PROJECTS, call.path("name"))
    config = PROJECT.checked({**row.config, **(call.body.config or {})})
    description = row.description if call.body.description is None else call.body.description
    await call.store.propose(UpdateProject(row.name, description, config, call.etag))
    return sync()


@routes.on("POST", "/{name}", body=ProjectsPost, entitlement="admin")
async def rename_project(call: Call[ProjectsPost]) -> web.Response:
    check_project_name(call.body.name)
    row = call.state.get(PROJECTS, call.path("name"))
    if row.name == DEFAULT:
        raise Forbidden("The 'default' project cannot be renamed")

    async def rename(_: object) -> None:
        await call.store.propose(RenameProject(row.name, call.body.name))

    return asynchronous(call.daemon.operations.start("Renaming project", {}, rename))


@routes.on("DELETE", "/{name}", entitlement="admin")
async def delete_project(call: Call[None]) -> web.Response:
    await call.store.propose(DeleteProject(call.path("name")))
    return sync()


@routes.on("GET", "/{name}/state", entitlement="can_view")
async def show_state(call: Call[None]) -> web.Response:
    return sync({"resources": usage_of(call.state, found(call))})


def found(call: AnyCall) -> Project:
    """The project of the path. Raises Forbidden for one that the caller is not confined to, there or not."""
    if not call.identity.sees(call.path("name")):
        raise Forbidden("not authorized")
    return call.state.get(PROJECTS, call.path("name"))


def usage_of(state: State, project: Project) -> dict[str, Usage]:
    """What the project has and may have of all that it can be limited in; -1 for no limit."""
    used = usage(state, project.name, instances_of(state, project.name))
    return {noun: {"Limit": limit_of(project, noun), "Usage": count} for noun, count in used.items()}


def check_project_name(name: str) -> None:
    check_name("Project", name, {"spaces": " ", "quotes": "'\"", "underscores": "_", "backslashes": "\\"})
    if name == "*":
        raise Invalid("Reserved project name", key="name", value=name)


def wire(state: State, row: Project) -> dict[str, Any]:
    return {
        "config": row.config,
        "description": row.description,
        "name": row.name,
        "used_by": sorted(used_by(state, row.name)),
    }


def used_by(state: State, project: str) -> Iterator[str]:
    for instance in state.rows(INSTANCES).values():
        if instance.project == project:
            yield url("instances", instance.name, project=project)
    for image in state.rows(IMAGES).values():
        if image.project == project:
            yield url("images", image.fingerprint, project=project)
    for profile in state.rows(PROFILES).values():
        if profile.project == project:
            yield url("profiles", profile.name, project=project)
    for network in state.rows(NETWORKS).values():
        if network.project == project:
            yield url("networks", network.name, project=project)
    for volume in volumes(state, project=project):
        yield volume_url(state, volume)
