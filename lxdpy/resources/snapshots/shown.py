"""Snapshots as clients see them."""

from cluster.state.txn import State
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.snapshots.model import Json, Snapshot
from lxdpy.resources.wire import rfc3339

UNKNOWN = -1  # size of what nobody measured


def wire(state: State, row: Snapshot) -> Json:
    """Profiles are applied as they are now."""
    config, devices = expanded(state, row)
    return {
        "expires_at": rfc3339(row.expires_at),
        "architecture": row.architecture,
        "config": row.config,
        "created_at": rfc3339(row.created_at),
        "devices": row.devices,
        "ephemeral": row.ephemeral,
        "expanded_config": config,
        "expanded_devices": devices,
        "last_used_at": rfc3339(row.last_used_at, "1970-01-01T00:00:00Z"),
        "name": row.name,
        "profiles": list(row.profiles),
        "stateful": False,
        "size": UNKNOWN,
    }
