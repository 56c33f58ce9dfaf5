"""A snapshot of a custom volume that is yet to be taken."""

import time
from datetime import UTC, datetime
from uuid import uuid4

from cluster.state.txn import State
from lxdpy.config.times import Span
from lxdpy.host.storage.registry import volume_keys
from lxdpy.resources.snapshots.names import next_name
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot


def taken(state: State, row: StorageVolume, name: str = "", expires: float | None = None) -> VolumeSnapshot:
    """Of the volume as it is now, with what the volume's keys say where nothing is given."""
    now = time.time()
    keys = volume_keys(state.get(POOLS, row.pool).driver)
    name = name or next_name(
        str(keys.parsed(row.config, "snapshots.pattern")),
        {one.name for one in row.snapshots},
        datetime.fromtimestamp(now, UTC),
    )
    span = keys.parsed(row.config, "snapshots.expiry")
    by_keys = span.after(now) if isinstance(span, Span) else 0.0
    return VolumeSnapshot(
        id=uuid4().hex,
        name=name,
        description=row.description,
        config=row.config,
        created_at=now,
        expires_at=by_keys if expires is None else expires,
    )
