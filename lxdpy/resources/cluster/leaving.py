"""What members do when one of them goes."""

import logging
from typing import TYPE_CHECKING

from cluster.errors import Conflict, Error, Uncertain
from cluster.membership.model import MEMBERS, Member, members
from cluster.state.txn import State
from lxdpy.resources.cluster.commands import LeaveMember
from lxdpy.resources.instances import given, teardown
from lxdpy.resources.instances.model import INSTANCES

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

OUT_WITHIN = 20.0  # seconds for votes and the lead to be handed on; it takes one or two


async def remove(daemon: "Daemon", row: Member, *, forced: bool) -> None:
    """Take a member out, at once for all others. When it next dials one it is told, and resets itself.

    Raises Invalid if it has what would be lost and this is not `forced`; Conflict if none of the others is
    there, as it would wait for them, leaving; Uncertain if it is not out in time: the leader goes on with it.
    """
    others = [o for o in members(daemon.state) if o.id != row.id and o.status in ("ready", "evacuated")]
    if others and not any(daemon.beat.online(other.id) for other in others):
        raise Conflict(f"No other member is online: {row.name} cannot be removed now", member=row.name)

    def gone(state: State) -> bool:
        return state.find(MEMBERS, row.id) is None or daemon.member_id != before

    before = daemon.member_id
    await daemon.store.propose(LeaveMember(row.id, forced))
    try:
        await daemon.until(gone, OUT_WITHIN)
    except TimeoutError:
        raise Uncertain(f"Member {row.name} is leaving, and not out yet", member=row.name) from None


async def vacate(daemon: "Daemon") -> None:
    """End what runs here for the cluster, and undo its networks; volumes with data stay on disk. Idempotent.

    For a member that is out: others may have its addresses by now, and nobody counts its GPUs.
    """
    mine = [row for row in daemon.state.rows(INSTANCES).values() if row.location == daemon.member_id]
    volumes = {row.volume for row in mine} | await given.volumes(daemon)
    await daemon.runtime.reattach(volumes)  # of what it was not to know of any more
    for volume in volumes:
        try:
            await daemon.runtime.kill_container(volume)
        except Error as failure:
            log.warning("ending %s: %s", volume, failure.message)
    for row in mine:
        await teardown.take_down(daemon, row)
    await daemon.bridges.remove_all()
    await daemon.pools.abandon()
