"""What the daemon itself does: LXD's own figures of it, and those of the log."""

import time
from collections import Counter
from typing import TYPE_CHECKING

from cluster.membership.model import MEMBERS
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.metrics.families import Families
from lxdpy.resources.warnings.model import WARNINGS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

STARTED = time.monotonic()  # of this process, some tenths of a second later


def measure(daemon: "Daemon", families: Families) -> None:
    state, me = daemon.state, daemon.member_id
    families.add("lxd_operations_total", sum(not one.is_final for one in daemon.operations.all()))
    open_ = sum(row.status != "resolved" for row in state.rows(WARNINGS).values())
    families.add("lxd_warnings_total", open_)
    families.add("lxd_uptime_seconds", time.monotonic() - STARTED)
    own = Counter(row.status for row in state.rows(INSTANCES).values() if row.location == me)
    for status, number in sorted(own.items()):
        families.add("lxdpy_instances", number, {"status": status})
    heard = Counter("online" if daemon.beat.online(id) else "offline" for id in state.rows(MEMBERS))
    for word in ("online", "offline"):
        families.add("lxdpy_members", heard[word], {"status": word})
    _log(daemon, families)


def _log(daemon: "Daemon", families: Families) -> None:
    status = daemon.store.status()
    families.add("lxdpy_raft_leader", daemon.store.is_leader)
    for name in ("term", "applied", "committed", "journal_bytes", "waiting"):
        families.add(f"lxdpy_raft_{name}", status.get(name, 0))
    families.add("lxdpy_raft_entries", status.get("last", 0) - status.get("snapshot", 0))
    families.add("lxdpy_raft_syncs_total", status.get("syncs", 0))
    families.add("lxdpy_raft_links", len(daemon.store.links))
    families.add("lxdpy_raft_voters", len(daemon.store.voters))
