"""Backups as clients see them."""

from lxdpy.resources.backups.model import Backup, Json
from lxdpy.resources.wire import rfc3339


def wire(row: Backup) -> Json:
    return {
        "name": row.name,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "instance_only": row.instance_only,
        "container_only": row.instance_only,
        "optimized_storage": row.optimized,
    }
