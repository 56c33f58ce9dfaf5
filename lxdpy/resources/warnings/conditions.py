"""What a member finds wrong with itself, look after look, and the leader with members that cannot say so."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cluster.membership.model import MEMBERS, members, name_of
from lxdpy.host.lxc.limits import CgroupLayout
from lxdpy.resources.cluster.renewal import offline
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances.model import INSTANCES, WARNED
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.server.model import setting
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.warnings import model
from lxdpy.resources.warnings.commands import PruneWarnings
from lxdpy.resources.warnings.model import WARNINGS, key_of
from lxdpy.resources.warnings.raising import observe, observe_of
from lxdpy.resources.wire import rfc3339, url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

LOOK_EVERY = 5.0  # seconds; a look is at what is in memory
KEEP_RESOLVED = 86400.0  # seconds, as LXD
SKEW = 5.0  # seconds between two clocks that are worth a word, as in LXD

Found = Mapping[str, str]  # message by entity


async def look(daemon: "Daemon") -> None:
    """Bring the warnings in line with what is so now. Proposes nothing when they are."""
    if not daemon.current or daemon.store.leader is None:
        return  # an old state tells of what may long have ended; and nobody could be told
    for type_, find in CONDITIONS.items():
        await observe(daemon, type_, find(daemon))
    for type_, missed in controllers(daemon.runtime.cgroups.layout).items():
        await observe(daemon, type_, missed)
    if daemon.store.is_leader:
        await _lead(daemon)


async def _lead(daemon: "Daemon") -> None:
    state = daemon.state
    silent = {row.id: daemon.beat.verdict(row.id) for row in members(state) if row.status != "joining"}
    found = {
        (member, url("cluster/members", name_of(state, member))): "The member does not answer"
        for member, verdict in silent.items()
        if not verdict.online and verdict.silence > float(setting(state, "cluster.offline_threshold", "20"))
    }
    await observe_of(daemon, model.OFFLINE, found, silent.keys())
    limit = time.time() - KEEP_RESOLVED
    if any(row.status == "resolved" and row.updated < limit for row in state.rows(WARNINGS).values()):
        await daemon.store.propose(PruneWarnings(limit))


def controllers(layout: CgroupLayout) -> Mapping[str, Found]:
    """By type of warning: what the kernel does not count or limit."""
    there = layout.legacy | layout.unified | ({"blkio"} if "io" in layout.unified else set())
    found: dict[str, Found] = {
        type_: {} if controller in there else {"": f"Limits of {controller} cannot be set"}
        for controller, type_ in model.CONTROLLERS.items()
    }
    no_swap = {} if layout.memory_swap else {"": "Limits of memory do not count swap"}
    return {**found, model.MISSING_SWAP_ACCOUNTING: no_swap}


def pools(daemon: "Daemon") -> Found:
    return {
        url("storage-pools", row.name): own.error
        for row in daemon.state.rows(POOLS).values()
        if (own := row.members.get(daemon.member_id)) is not None and own.error
    }


def networks(daemon: "Daemon") -> Found:
    return {
        url("networks", row.name, project=row.project): own.error
        for row in daemon.state.rows(NETWORKS).values()
        if (own := row.members.get(daemon.member_id)) is not None and own.error
    }


def gpus(daemon: "Daemon") -> Found:
    return {
        url("gpus", row.uuid): row.reason or "its driver says so"
        for row in daemon.state.rows(GPUS).values()
        if row.member == daemon.member_id and row.health == "failed"
    }


def leases(daemon: "Daemon") -> Found:
    """Until they end, or are renewed."""
    return {
        url("instances", row.name, project=row.project): f"It ends at {rfc3339(float(row.config[WARNED]))}"
        for row in daemon.state.rows(INSTANCES).values()
        if row.location == daemon.member_id and WARNED in row.config
    }


def clock(daemon: "Daemon") -> Found:
    skew = daemon.beat.skew(daemon.store.leader)
    if skew is None or abs(skew) < SKEW:
        return {}
    return {"": f"The clock is {'ahead of' if skew > 0 else 'behind'} the leader's by more than {SKEW:g} s"}


def certificate(daemon: "Daemon") -> Found:
    """The member's own is to be another, which somebody cannot be told of."""
    row = daemon.state.find(MEMBERS, daemon.member_id)
    silent = offline(daemon) if row is not None and row.next_fingerprint else []
    return {"": f"It is used when these know it: {', '.join(silent)}"} if silent else {}


def dhcp(daemon: "Daemon") -> Found:
    """Those that ended and could not be started again so far; `tend` warned when it saw the end."""
    down = {url("networks", row.name, project=row.project) for row in daemon.bridges.down()}
    rows = (
        daemon.state.find(WARNINGS, key_of(model.DHCP_ENDED, daemon.member_id, entity)) for entity in down
    )
    return {row.entity: row.message for row in rows if row is not None and row.status != "resolved"}


CONDITIONS: Mapping[str, Callable[["Daemon"], Found]] = {
    model.POOL_UNAVAILABLE: pools,
    model.NETWORK_UNAVAILABLE: networks,
    model.GPU_FAILED: gpus,
    model.LEASE_ENDING: leases,
    model.TIME_SKEW: clock,
    model.DHCP_ENDED: dhcp,
    model.CERTIFICATE_FAILED: certificate,
}
