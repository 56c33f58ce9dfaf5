"""Changing instances: checked first, then recorded; what runs follows at once, or takes the record back."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Conflict, Invalid, Stale
from cluster.state.etag import check_etag
from lxdpy.host.devices.disk import missing_source
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import RACED, grants_held
from lxdpy.resources.instances import cloud_init
from lxdpy.resources.instances.checks import check_config, check_devices, check_gpus, root_pool
from lxdpy.resources.instances.claims import ask_of
from lxdpy.resources.instances.commands import UpdateInstance, instance_etag, is_note
from lxdpy.resources.instances.expand import expand, expanded, profiles_of
from lxdpy.resources.instances.follow import Grants, align, record_of
from lxdpy.resources.instances.given import as_running
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import built, note, present, root_size, volume_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Edit = Callable[[Instance], Instance]
TRIES = 4  # of a change, when the row changes meanwhile (a profile is renamed, say), or a GPU is taken
LOCKED_IN = ("volatile.uuid", "volatile.idmap.base", "volatile.idmap.current", "volatile.idmap.next")
COMES_AND_GOES = re.compile(  # of notes; those with a part more are of a device, or of the last state
    r"volatile\.(apply_template|gpu_[a-z_]+|renamed_from|restoring|[^.]+\..+)"
)


def shown_etag(row: Instance) -> str:
    """Of what users may change: the daemons' notes may be other ones before a change comes back."""
    own = {key: value for key, value in row.config.items() if not is_note(key)}
    return instance_etag(msgspec.structs.replace(row, config=own))


def check(daemon: "Daemon", row: Instance, new: Instance) -> None:
    """Raises Invalid or NotFound for what could never be applied. Changes nothing."""
    check_config(new.config)
    check_notes(row, new)
    if new.architecture != row.architecture:
        raise Invalid("The architecture of an instance cannot be changed", key="architecture")
    profiles = profiles_of(daemon.state, new.project, new.profiles)
    config, devices = expand(profiles, new.config, new.devices)
    check_devices(daemon, devices, new.project)
    if root_pool(daemon.state, devices) != row.pool:
        raise Invalid("The root disk cannot change its pool", key="pool")
    if devices != expanded(daemon.state, row)[1]:
        check_gpus(daemon, ask_of(config, devices, new.architecture))


def check_notes(row: Instance, new: Instance) -> None:
    """What the daemon notes itself may come back as it was, or out of date, but is not for setting: who read
    the config of a running instance may send it back once that has stopped, with notes that have gone.
    """
    for name, value in new.config.items():
        if is_note(name) and name not in row.config and not COMES_AND_GOES.fullmatch(name):
            raise Invalid(f"{name} is set by the daemon only", key=name)
        if name in LOCKED_IN and value != row.config.get(name):
            raise Invalid(f"{name} cannot be changed", key=name)


async def apply(daemon: "Daemon", key: str, edit: Edit, etag: str = "") -> None:
    """Make the edit, of the row as it is by then. A running container that cannot follow takes it back.

    Raises Stale unless the row still has the caller's etag, if one is given.
    """
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        for left in reversed(range(TRIES)):
            row = built(daemon, key)
            check_etag(etag, shown_etag(row))
            new = edit(row)
            check(daemon, row, new)
            await _check_sources(row, new)
            new = _with_notes(row, new)
            try:
                await _apply(daemon, row, new)
            except (Stale, Conflict) as lost:
                if not left or not (isinstance(lost, Stale) or RACED in lost.facts):
                    raise
            else:
                return


async def _check_sources(row: Instance, new: Instance) -> None:
    """A slip in a path is told at once, not at the next start. Raises Invalid."""
    for name, options in new.devices.items():
        if options != row.devices.get(name) and (path := await missing_source(options)):
            raise Invalid(f'Missing source path "{path}" for disk "{name}"', device=name, path=path)


def _with_notes(row: Instance, new: Instance) -> Instance:
    """As it will be recorded: with all notes that there are, some of which say what takes effect."""
    own = {key: value for key, value in new.config.items() if not is_note(key)}
    notes = {key: value for key, value in row.config.items() if is_note(key)}
    return msgspec.structs.replace(new, config=own | notes)


async def _apply(daemon: "Daemon", row: Instance, new: Instance) -> None:
    before, after = expanded(daemon.state, row), expanded(daemon.state, new)
    if daemon.runtime.state(row.volume).status == "Stopped":
        changed = [name for name, options in before[1].items() if options != after[1].get(name)]
        held = grants_held(daemon.state, row.key, row.config)
        kept = tuple(grant for grant in held if grant.device not in changed)
        gone = tuple(name for name in changed if name not in after[1])
        await daemon.store.propose(command(row, new, kept if kept != held else None, gone))
    else:
        await _while_it_runs(daemon, row, new)
    if cloud_init.differs(before[0], after[0]):
        now = present(daemon, row.key)
        await note(daemon, now, cloud_init.another())
    if root_size(before[1]) != root_size(after[1]):
        await daemon.pools.driver(row.pool).resize(volume_of(row, after[1]))


async def _while_it_runs(daemon: "Daemon", row: Instance, new: Instance) -> None:
    given = await record_of(daemon, row)
    wanted = as_running(given, expanded(daemon.state, new))
    held = grants_held(daemon.state, row.key, row.config)

    async def commit(grants: Grants, undo: Undo) -> Instance:
        state = await daemon.store.propose(command(row, new, grants))
        undo.push(_take_back, daemon, row, held if grants is not None else None)
        await failpoints.reach("instance.updated")
        return state.get(INSTANCES, row.key)

    await align(daemon, row, given, wanted, commit)


async def _take_back(daemon: "Daemon", row: Instance, grants: Grants) -> None:
    await daemon.store.propose(command(present(daemon, row.key), row, grants))


def command(row: Instance, new: Instance, grants: Grants, gone: tuple[str, ...] = ()) -> UpdateInstance:
    """From the row to the new one, and refused if the row is another by then."""
    return UpdateInstance(
        row.key,
        new.description,
        new.config,
        new.devices,
        new.profiles,
        new.ephemeral,
        etag=instance_etag(row),
        grants=grants,
        gone=gone,
    )
