"""/1.0/profiles."""

from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Invalid, Stale
from cluster.state.txn import State
from lxdpy.config.instance import INSTANCE
from lxdpy.resources.instances.checks import check_config, check_devices, named_pool
from lxdpy.resources.instances.expand import expand, expanded, profiles_of
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.commands import (
    CreateProfile,
    DeleteProfile,
    RenameProfile,
    UpdateProfile,
    profile_etag,
    users,
)
from lxdpy.resources.profiles.model import PROFILES, Config, Devices, Profile, ProfilePut, ProfilesPost
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import check_name, options_set, url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/profiles")

TRIES = 64  # of a change that others make meanwhile, too: each time one of them has succeeded


@routes.on("GET", entitlement="can_view")
async def list_profiles(call: Call[None]) -> web.Response:
    own = home(call.state, call.project, "profiles")
    rows = [row for _, row in sorted(call.state.rows(PROFILES).items()) if row.project == own]
    if not call.recursive:
        return sync([url("profiles", row.name, project=own) for row in rows])
    users_of = by_profile(call.state)
    return sync([wire(row, users_of.get(row.key, [])) for row in rows])


@routes.on("POST", body=ProfilesPost, entitlement="can_create_profiles")
async def create_profile(call: Call[ProfilesPost]) -> web.Response:
    check_name("Profile", call.body.name)
    profile = Profile(
        home(call.state, call.project, "profiles"),
        call.body.name,
        call.body.description,
        INSTANCE.checked(call.body.config),
        options_set(call.body.devices),
    )
    check(call, profile.config, profile.devices)
    await call.store.propose(CreateProfile(profile))
    return sync(location=url("profiles", profile.name, project=profile.project))


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_profile(call: Call[None]) -> web.Response:
    row = call.state.get(PROFILES, key(call))
    return sync(wire(row, users(call.state, row)), etag=profile_etag(row))


@routes.on("PUT", "/{name}", body=ProfilePut, entitlement="can_edit")
async def update_profile(call: Call[ProfilePut]) -> web.Response:
    row, body = call.state.get(PROFILES, key(call)), call.body
    new = changed(row, body.description or "", body.config or {}, body.devices or {})
    await update(call, new, call.etag)
    return sync()


@routes.on("PATCH", "/{name}", body=ProfilePut, entitlement="can_edit")
async def patch_profile(call: Call[ProfilePut]) -> web.Response:
    for left in reversed(range(TRIES)):
        row = call.store.state.get(PROFILES, key(call))
        try:
            await update(call, merged(row, call.body), call.etag or profile_etag(row))
            break
        except Stale:
            if call.etag or not left:
                raise
    return sync()


def merged(row: Profile, body: ProfilePut) -> Profile:
    """What is not sent stays."""
    description = row.description if body.description is None else body.description
    return changed(row, description, row.config | (body.config or {}), row.devices | (body.devices or {}))


def changed(row: Profile, description: str, config: Config, devices: Devices) -> Profile:
    config = INSTANCE.checked(config)
    return msgspec.structs.replace(row, description=description, config=config, devices=options_set(devices))


async def update(call: AnyCall, new: Profile, etag: str) -> None:
    """Check it, with all that use it, and record it. Raises Stale if the row has another etag by then."""
    state = call.store.state
    check(call, new.config, new.devices)
    for user in users(state, new):
        applied = profiles_of(state, user.project, user.profiles)
        after = expand([new if p.key == new.key else p for p in applied], user.config, user.devices)[1]
        if named_pool(after) != user.pool == named_pool(expanded(state, user)[1]):
            raise Invalid("At least one instance relies on this profile's root disk device", key="devices")
    await call.store.propose(UpdateProfile(new.key, new.description, new.config, new.devices, etag))


@routes.on("POST", "/{name}", body=ProfilesPost, entitlement="can_edit")
async def rename_profile(call: Call[ProfilesPost]) -> web.Response:
    row = call.state.get(PROFILES, key(call))
    check_name("Profile", call.body.name)
    await call.store.propose(RenameProfile(row.key, call.body.name))
    return sync(location=url("profiles", call.body.name, project=row.project))


@routes.on("DELETE", "/{name}", entitlement="can_delete")
async def delete_profile(call: Call[None]) -> web.Response:
    await call.store.propose(DeleteProfile(key(call)))
    return sync()


def key(call: AnyCall) -> str:
    return f"{home(call.state, call.project, 'profiles')}/{call.path('name')}"


def check(call: AnyCall, config: Config, devices: Devices) -> None:
    """Raises Invalid. Profiles have no volatile keys, nor an image's."""
    for name in config:
        if name.startswith(("volatile.", "image.")):
            kind = name.partition(".")[0].capitalize()
            raise Invalid(f"{kind} keys can only be set on instances", key=name)
    check_config(config)
    check_devices(call.daemon, devices, call.project, whole=False)


def by_profile(state: State) -> dict[str, list[Instance]]:
    """Users of every profile, by its key: one pass over the instances."""
    found: dict[str, list[Instance]] = {}
    for _, row in sorted(state.rows(INSTANCES).items()):
        own = home(state, row.project, "profiles")
        for name in row.profiles:
            found.setdefault(f"{own}/{name}", []).append(row)
    return found


def wire(row: Profile, used_by: list[Instance]) -> dict[str, Any]:
    return {
        "config": row.config,
        "description": row.description,
        "devices": row.devices,
        "name": row.name,
        "used_by": [url("instances", user.name, project=user.project) for user in used_by],
    }
