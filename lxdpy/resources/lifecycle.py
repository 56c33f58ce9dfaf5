"""PURE: lifecycle events from row changes, for every noun.

Every member applies the same changes, so every member makes the same events: a client hears all of them
wherever it listens, and none is sent between members. Names are LXD's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from cluster.state.txn import Change
from lxdpy.resources.backups.model import Backup
from lxdpy.resources.gpu_queue import events as gpu_queue
from lxdpy.resources.gpus.events import told
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.ready import is_ready
from lxdpy.resources.networks.events import told_of_forwards
from lxdpy.resources.parking.events import told as told_of_parking
from lxdpy.resources.projects.model import DEFAULT
from lxdpy.resources.snapshots.commands import RESTORING
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.volume_snapshots.events import told as told_of_parts
from lxdpy.resources.warnings.model import WarningRow
from lxdpy.resources.wire import url


class Lifecycle(msgspec.Struct, frozen=True):
    """One lifecycle event: its action, the URL it is about, and who asked for it."""

    action: str
    source: str
    project: str = "default"
    location: str = ""  # member id, where the noun has one
    context: dict[str, str] = {}
    requestor: dict[str, str] = {}


class Noun(msgspec.Struct, frozen=True):
    """How a table's changes are told. `words` are the event names without the verb."""

    word: str
    url: Callable[[Any], str]
    context: Callable[[Any], dict[str, str]] = lambda _: {}
    explained: tuple[str, ...] = ("created",)  # the verbs that are told with the context


def _named(collection: str) -> Callable[[Any], str]:
    """Of rows of one project or of none."""
    return lambda row: url(collection, row.name, project=getattr(row, "project", "default"))


NOUNS: dict[str, Noun] = {
    "instances": Noun("instance", _named("instances")),
    "snapshots": Noun(
        "instance-snapshot",
        lambda row: url("instances", row.instance, "snapshots", row.name, project=row.project),
    ),
    "backups": Noun(
        "instance-backup",
        lambda row: url("instances", row.instance, "backups", row.name, project=row.project),
    ),
    "projects": Noun("project", _named("projects")),
    "profiles": Noun("profile", _named("profiles")),
    "networks": Noun("network", _named("networks")),
    "storage_pools": Noun("storage-pool", _named("storage-pools")),
    "certificates": Noun("certificate", lambda row: f"/1.0/certificates/{row.fingerprint}"),
    "images": Noun(
        "image",
        lambda row: url("images", row.fingerprint, project=row.project),
        lambda _: {"type": "container"},
    ),
    "image_aliases": Noun(
        "image-alias",
        _named("images/aliases"),
        lambda row: {"target": row.target},
        ("created", "updated"),
    ),
    "cluster_groups": Noun("cluster-group", _named("cluster/groups")),
}

POWER = {
    ("Stopped", "Running"): "instance-started",
    ("Error", "Running"): "instance-started",
    ("Running", "Stopped"): "instance-stopped",
    ("Frozen", "Stopped"): "instance-stopped",
    ("Running", "Frozen"): "instance-paused",
    ("Frozen", "Running"): "instance-resumed",
}


def all_events(changes: Sequence[Change]) -> Iterator[Lifecycle]:
    """The lifecycle events that the changes of one entry of the log give rise to, in order.

    However many settings one request changed, it is told once, as in LXD.
    """
    hidden = {place for place, change in enumerate(changes) if change.table == "settings"}
    if hidden:
        yield from events_of(changes[min(hidden)])
    for place, change in enumerate(changes):
        if place in hidden:
            continue
        gone = _renamed_from(change, changes)
        if gone is None:
            yield from events_of(change)
        else:
            hidden.add(gone)
            yield _renamed(change, changes[gone].before.name)


def _renamed_from(change: Change, changes: Sequence[Change]) -> int | None:
    """Where the row went that `change` has under another name: commands insert it, then delete it."""
    if change.before is not None or change.table not in NOUNS or not hasattr(change.after, "name"):
        return None
    for place, other in enumerate(changes):
        if other.table == change.table and other.after is None and _is_same(other.before, change.after):
            return place
    return None


def _is_same(before: Any, after: Any) -> bool:
    """But for its name."""
    if isinstance(after, Instance):
        return bool(before.uuid == after.uuid)
    return bool(msgspec.structs.replace(before, name=after.name) == after)


def _renamed(change: Change, old: str) -> Lifecycle:
    noun = NOUNS[change.table]
    return Lifecycle(
        f"{noun.word}-renamed",
        noun.url(change.after),
        _project_of(noun, change.after),
        getattr(change.after, "location", ""),
        {"old_name": old},
        change.by,
    )


def events_of(change: Change) -> list[Lifecycle]:
    """The lifecycle events of one change by itself."""
    if change.table in OWN_WAYS:
        return OWN_WAYS[change.table](change)
    if change.table in ("snapshots", "backups"):
        return _file(NOUNS[change.table], change)
    if change.table == "settings":
        return [Lifecycle("config-updated", "/1.0", requestor=change.by)]
    if change.table == "cluster" and change.after is not None and change.after.enabled:
        before = change.before is not None and change.before.enabled
        if before and change.before.certificate == change.after.certificate:
            return []
        action = "cluster-certificate-updated" if before else "cluster-enabled"
        return [Lifecycle(action, "/1.0/cluster", requestor=change.by)]
    if change.table == "tokens" and change.before is None and change.after.kind == "member":
        return [Lifecycle("cluster-token-created", "/1.0/cluster/members", requestor=change.by)]
    noun = NOUNS.get(change.table)
    return _plain(noun, change) if noun else []


def _network(change: Change) -> list[Lifecycle]:
    before, after = change.before, change.after
    forwards = told_of_forwards(before, after) if before is not None and after is not None else ()
    return _plain(NOUNS["networks"], change) + [
        Lifecycle(action, path, after.project, member, requestor=change.by)
        for action, path, member in forwards
    ]


def _plain(noun: Noun, change: Change) -> list[Lifecycle]:
    row = change.after if change.after is not None else change.before
    verb = "created" if change.before is None else "deleted" if change.after is None else "updated"
    if noun.word in ("network", "storage-pool") and _pending(change.before) and not _pending(change.after):
        verb = "created"
    elif noun.word in ("network", "storage-pool") and _members_only(change):
        return []
    project = _project_of(noun, row)
    if noun.word == "profile" and row.name == DEFAULT and verb != "updated":
        return []  # it comes and goes with its project
    context = noun.context(row) if verb in noun.explained else {}
    return [Lifecycle(f"{noun.word}-{verb}", noun.url(row), project, context=context, requestor=change.by)]


def _project_of(noun: Noun, row: Any) -> str:
    """A project's own events are told to those who listen to it."""
    return str(row.name if noun.word == "project" else getattr(row, "project", "default"))


def _pending(row: Any) -> bool:
    return row is not None and row.status == "Pending"


def _members_only(change: Change) -> bool:
    """A member reported its part, or defined it: nothing a user asked to hear of."""
    if change.after is None:
        return _pending(change.before)
    if change.before is None:
        return _pending(change.after)
    replace = msgspec.structs.replace
    return bool(replace(change.before, members={}) == replace(change.after, members={}))


def _volume(change: Change) -> list[Lifecycle]:
    """Of a custom volume, from when it is there until nobody may use it any more; of what it has."""
    before, after = change.before, change.after
    if before is None or after is None:
        return []
    if (before.snapshots, before.backups) != (after.snapshots, after.backups):
        return [
            Lifecycle(action, path, after.project, after.location, context, change.by)
            for action, path, context in told_of_parts(before, after)
        ]
    verb, context = "updated", {}
    if after.status != before.status:
        verb = {"Ready": "created", "Deleting": "deleted"}[after.status]
        context = {"type": "custom"} if verb == "created" else {}
    elif after.name != before.name:
        verb, context = "renamed", {"old_name": before.name}
    elif after.restored_at != before.restored_at:
        verb = "restored"
    if before.status == "Creating" and verb != "created":
        return []  # it never was there
    source = url(f"storage-pools/{after.pool}/volumes/custom", after.name, project=after.project)
    return [Lifecycle(f"storage-volume-{verb}", source, after.project, after.location, context, change.by)]


def _member(change: Change) -> list[Lifecycle]:
    before, after = change.before, change.after
    row = after if after is not None else before
    source = f"/1.0/cluster/members/{quote(row.name, safe='')}"
    if after is None:
        action = "cluster-member-removed"
    elif before is None or before.status == after.status == "joining" or after.status == "leaving":
        return []
    elif before.status == "joining":
        action = "cluster-member-added"
    elif before.name != after.name:
        action = "cluster-member-renamed"
    else:
        action = "cluster-member-updated"
    return [Lifecycle(action, source, requestor=change.by)]


def _file(noun: Noun, change: Change) -> list[Lifecycle]:
    """There once its files are, gone before they are. With its instance it comes and goes unsaid."""
    before: Snapshot | Backup | None = change.before
    after: Snapshot | Backup | None = change.after
    if before is None or after is None:
        return []
    verb = {("Creating", "Ready"): "created", ("Ready", "Deleting"): "deleted", ("Ready", "Ready"): "updated"}
    happened = verb.get((before.status, after.status))
    if happened is None:
        return []
    return [Lifecycle(f"{noun.word}-{happened}", noun.url(after), after.project, requestor=change.by)]


def _warning(change: Change) -> list[Lifecycle]:
    """What operators say of it; that it is seen, or has ended, is none of their doing and not told."""
    before: WarningRow | None = change.before
    after: WarningRow | None = change.after
    if before is None or not change.by:
        return []
    if after is None:
        action = "warning-deleted"
    elif after.status == before.status or after.count != before.count:
        return []
    else:
        action = {"new": "warning-reset", "acknowledged": "warning-acknowledged"}.get(after.status, "")
    source = f"/1.0/warnings/{before.uuid}"
    return [Lifecycle(action, source, before.project, requestor=change.by)] if action else []


def _gpu(change: Change) -> list[Lifecycle]:
    row = change.after if change.after is not None else change.before
    found = told(change)
    if found is None:
        return []
    action, context = found
    source = url("gpus", row.uuid)
    return [Lifecycle(action, source, location=row.member, context=context, requestor=change.by)]


def _turn(change: Change) -> list[Lifecycle]:
    found = gpu_queue.told(change)
    if found is None:
        return []
    turn, (action, context) = change.after, found
    source = url("gpu-queue", turn.id, project=turn.project)
    return [Lifecycle(action, source, turn.project, context=context, requestor=change.by or turn.by)]


def _instance(change: Change) -> list[Lifecycle]:
    before, after = change.before, change.after
    row: Instance = after if after is not None else before
    action = _deleted(before) if after is None else _happened(before, after) if before is not None else ""
    source = NOUNS["instances"].url(row)
    if not action and before is not None and after is not None:
        told = told_of_parking(before.config, after.config)
        return [Lifecycle(told[0], source, row.project, row.location, told[1], change.by)] if told else []
    if not action:
        return []
    created = action == "instance-created"
    context = {"type": row.type, "storage-pool": row.pool} if created else {}
    if action == "instance-restored":
        context = {"snapshot": f"{row.name}/{before.config[RESTORING]}"}
    by = change.by or row.created_by if created else change.by
    return [Lifecycle(action, source, row.project, row.location, context, by)]


def _deleted(before: Instance) -> str:
    """One that was never built was never there."""
    return "" if before.status == "Creating" else "instance-deleted"


def _happened(before: Instance, after: Instance) -> str:
    """The action, "" for none: a stop by force and another are told apart, and a restart is told as one."""
    if before.status == "Creating" != after.status:
        return "instance-created"
    if before.restored_at != after.restored_at:
        return "instance-restored"
    if before.status != after.status:
        action = POWER.get((before.status, after.status), "")
        return "instance-shutdown" if action == "instance-stopped" and not after.killed else action
    if after.status == "Running" and before.last_used_at != after.last_used_at:
        return "instance-restarted"
    if is_ready(after) and not is_ready(before):
        return "instance-ready"
    return "instance-updated" if _config_changed(before, after) else ""


def _config_changed(before: Instance, after: Instance) -> bool:
    return _visible(before) != _visible(after)


def _visible(row: Instance) -> tuple[object, ...]:
    config = {key: value for key, value in row.config.items() if not key.startswith("volatile.")}
    return (config, row.devices, row.profiles, row.description, row.ephemeral, row.location, row.pool)


def _image(change: Change) -> list[Lifecycle]:
    """That it was used, or who has its files, is told nobody."""
    before, after = change.before, change.after
    if before is not None and after is not None:
        replace = msgspec.structs.replace
        unsaid = {"members": (), "last_used_at": 0.0}
        if replace(before, **unsaid) == replace(after, **unsaid):
            return []
    return _plain(NOUNS["images"], change)


OWN_WAYS: dict[str, Callable[[Change], list[Lifecycle]]] = {
    "instances": _instance,
    "images": _image,
    "networks": _network,
    "storage_volumes": _volume,
    "members": _member,
    "gpus": _gpu,
    "gpu_queue": _turn,
    "warnings": _warning,
}
"""Tables whose changes are not told as other nouns' are."""
