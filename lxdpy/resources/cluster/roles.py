"""Roles of members, as this member sees them: what Raft says, and what the leader is about to make of it."""

from typing import TYPE_CHECKING

from cluster.membership.model import Member, is_clustered, members
from cluster.membership.voters import Presence, Roles, roles
from lxdpy.resources.server.model import setting

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def roles_of(daemon: "Daemon", row: Member) -> list[str]:
    """LXD's role names: the database's, then those an operator gave. A spare has none of the first."""
    if not is_clustered(daemon.state):
        return []
    return [*_database_roles(daemon, row.id), *row.roles]


def _database_roles(daemon: "Daemon", member: str) -> list[str]:
    if member in daemon.store.voters:
        return ["database-leader", "database"] if member == daemon.store.leader else ["database"]
    wanted = wanted_roles(daemon)
    return ["database-standby"] if member in (*wanted.voters, *wanted.standby) else []


def wanted_roles(daemon: "Daemon") -> Roles:
    """Who should vote and who stands by.

    A silent voter is lost after half of `cluster.offline_threshold`, so that by then another has its vote; a
    daemon that is restarted is back in a fraction of that.
    """
    state, store = daemon.state, daemon.store
    rows = members(state)
    patience = int(setting(state, "cluster.offline_threshold", "20")) / 2
    judged = {row.id: daemon.beat.verdict(row.id) for row in rows}
    presence = Presence(
        alive=frozenset(member for member, verdict in judged.items() if verdict.online),
        lost=frozenset(member for member, verdict in judged.items() if verdict.silence > patience),
    )
    return roles(
        rows,
        store.voters,
        presence,
        leader=store.leader,
        max_voters=int(setting(state, "cluster.max_voters", "3")),
        max_standby=int(setting(state, "cluster.max_standby", "2")),
    )
