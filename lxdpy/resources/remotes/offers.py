"""The operation by which a client has an instance, a snapshot or a volume sent to another server."""

from typing import TYPE_CHECKING

from cluster.errors import Invalid
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import built
from lxdpy.resources.migration.move import LIVE
from lxdpy.resources.operations.operation import Operation, Options
from lxdpy.resources.remotes.arrivals import linked, sockets
from lxdpy.resources.remotes.link import Progress
from lxdpy.resources.remotes.model import Target, peer_of
from lxdpy.resources.remotes.source import offer_of, send
from lxdpy.resources.snapshots.model import Snapshot, snapshots_of
from lxdpy.resources.snapshots.readers import used

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Resources = dict[str, list[str]]


def offer_instance(
    daemon: "Daemon", row: Instance, target: Target | None, resources: Resources, *, live: bool, alone: bool
) -> Operation:
    """To whoever opens the operation's websockets, or to `target`. Raises Invalid, Conflict."""
    built(daemon, row.key)
    if live and daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid(LIVE, key="live")
    snapshots = [] if alone else snapshots_of(daemon.state, row.key)
    return _started(daemon, row, snapshots, None, target, resources)


def offer_snapshot(
    daemon: "Daemon", row: Instance, snapshot: Snapshot, target: Target | None, resources: Resources
) -> Operation:
    """As an instance of its own. Raises Invalid, Conflict."""
    built(daemon, row.key)
    return _started(daemon, row, [], snapshot, target, resources)


def _started(
    daemon: "Daemon",
    row: Instance,
    snapshots: list[Snapshot],
    snapshot: Snapshot | None,
    target: Target | None,
    resources: Resources,
) -> Operation:
    ids = [one.id for one in (*snapshots, snapshot) if one is not None]
    description = "Transferring snapshot" if snapshot else "Migrating instance"
    peer = peer_of(target.operation, target.certificate, target.secrets, "target") if target else None
    waiting = None if peer else sockets()

    async def run(operation: Operation) -> None:
        progress = Progress(row.name, lambda said: operation.progress(fs_progress=said))
        with used(daemon, *ids):
            async with linked(peer, waiting, progress) as link:
                await send(offer_of(daemon, row, snapshots, snapshot), link)

    options: Options = {"project": row.project, "may_cancel": True}
    if waiting is not None:
        options |= {"kind": "websocket", "sockets": waiting}
    return daemon.operations.start(description, resources, run, **options)
