"""A snapshot that is yet to be taken: whether it may be, its name, how long it is kept."""

from datetime import UTC, datetime
from uuid import uuid4

from cluster.errors import Forbidden
from cluster.state.txn import State
from lxdpy.config.instance import INSTANCE
from lxdpy.config.times import Span
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.projects.model import PROJECTS, on
from lxdpy.resources.snapshots.model import Snapshot, all_of
from lxdpy.resources.snapshots.names import next_name


def check_allowed(state: State, project: str) -> None:
    """Raises Forbidden in a restricted project that may make none."""
    config = state.get(PROJECTS, project).config
    if on(config, "restricted") and config.get("restricted.snapshots") != "allow":
        raise Forbidden(f'Project "{project}" doesn\'t allow for snapshot creation')


def unnamed(state: State, row: Instance, config: dict[str, str], now: float) -> str:
    """The next name by `snapshots.pattern`."""
    pattern = str(INSTANCE.parsed(config, "snapshots.pattern"))
    taken = {snapshot.name for snapshot in all_of(state, row.key)}
    return next_name(pattern, taken, datetime.fromtimestamp(now, UTC))


def expiry(config: dict[str, str], now: float) -> float:
    """Unix seconds by `snapshots.expiry`; 0: never."""
    span = INSTANCE.parsed(config, "snapshots.expiry")
    return span.after(now) if isinstance(span, Span) else 0.0


def taken(row: Instance, name: str, now: float, expires: float) -> Snapshot:
    """The snapshot of an instance as it is."""
    return Snapshot(
        project=row.project,
        instance=row.name,
        name=name,
        id=uuid4().hex,
        created_at=now,
        expires_at=expires,
        architecture=row.architecture,
        description=row.description,
        config=row.config,
        devices=row.devices,
        profiles=row.profiles,
        ephemeral=row.ephemeral,
        last_used_at=row.last_used_at,
    )
