"""Members as clients see them."""

import time
from typing import TYPE_CHECKING

from cluster.membership.features import OUTDATED, outdated
from cluster.membership.model import Member, members
from cluster.state.etag import etag_of
from cluster.state.txn import State
from lxdpy.host.storage.registry import pool_keys
from lxdpy.resources.cluster.model import Json
from lxdpy.resources.cluster.roles import roles_of
from lxdpy.resources.storage_pools.model import OWN_KEYS, POOLS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def wire(daemon: "Daemon", row: Member) -> Json:
    status, message = health_of(daemon, row)
    shown = roles_of(daemon, row)
    return {
        "server_name": row.name,
        "url": f"https://{row.address}" if row.address else "",
        "database": any(role.startswith("database") for role in shown),
        "status": status,
        "message": message,
        "architecture": row.architecture,
        "roles": shown,
        "failure_domain": row.failure_domain,
        "description": row.description,
        "config": row.config,
        "groups": list(row.groups),
    }


def member_etag(daemon: "Daemon", row: Member) -> str:
    return etag_of(roles_of(daemon, row), row.failure_domain, row.description, row.config, row.groups)


def health_of(daemon: "Daemon", row: Member) -> tuple[str, str]:
    """Status and message as `lxc cluster list` shows them."""
    verdict = daemon.beat.verdict(row.id)
    if row.status == "evacuated":
        return "Evacuated", "Unavailable due to maintenance"
    if not verdict.online:
        if not verdict.known:
            return "Offline", "No heartbeat since this server was started"
        when = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(time.time() - verdict.silence))
        return "Offline", f"No heartbeat for {duration(verdict.silence)} ({when})"
    if row.status in ("joining", "leaving"):
        return "Blocked", f"{row.status.capitalize()} the cluster"
    if outdated(row, members(daemon.state)):
        return "Blocked", OUTDATED
    return "Online", "Fully operational"


def duration(seconds: float) -> str:
    """As Go writes it: `1h2m3.5s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    shown = f"{hours}h" if hours else ""
    shown += f"{minutes}m" if hours or minutes else ""
    return shown + f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


def member_keys(state: State) -> list[Json]:
    """The keys a joiner may fill in: what is particular to a member of each pool."""
    return [
        {
            "entity": "storage-pool",
            "name": pool.name,
            "key": key,
            "value": "",
            "description": f'"{key}" property for storage pool "{pool.name}"',
        }
        for _, pool in sorted(state.rows(POOLS).items())
        for key in OWN_KEYS
        if not key.startswith("volatile.") and pool_keys(pool.driver).find(key)
    ]
