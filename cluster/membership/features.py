"""PURE: versions side by side. Feature levels of this version, of members, and of the cluster.

A version with new commands, or new fields of old ones, has a higher level. Each member's row has the level of
the version it runs. The cluster's level is the lowest of them, and never sinks: the leader raises it when all
members have been updated, and a server of an older version cannot join any more. What is new is used once the
cluster's level allows it (`Machine.admit`), so no log has a command in it that a member of its cluster does
not know; a member that meets one nevertheless stops.
"""

from collections.abc import Iterable

import msgspec

from cluster.errors import Conflict
from cluster.membership.model import CLUSTER, MEMBERS, THE_CLUSTER, Member, name_of, the_cluster
from cluster.state.command import Command
from cluster.state.txn import State, Txn

FEATURES = 1  # of this version
OUTDATED = "Needs updating to newer version"  # LXD's words

replace = msgspec.structs.replace


class UpdateVersion(Command, frozen=True, tag="member.version"):
    """A member runs another version than before."""

    member: str
    features: int
    version: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        txn.put(MEMBERS, row.id, replace(row, features=self.features, version=self.version))


class RaiseLevel(Command, frozen=True, tag="cluster.level"):
    """All members have this level: from here on the cluster may use it. Never lowers it."""

    to: int

    def apply(self, txn: Txn) -> None:
        for row in txn.rows(MEMBERS).values():
            if row.features < self.to:
                raise Conflict(
                    f"Member {name_of(txn, row.id)} has feature level {row.features}", member=row.id
                )
        cluster = the_cluster(txn)
        txn.put(CLUSTER, THE_CLUSTER, replace(cluster, features=max(cluster.features, self.to)))


def level_of(state: State | Txn) -> int:
    """What all members of the cluster understand."""
    row = state.find(CLUSTER, THE_CLUSTER)
    return row.features if row else 1


def common(members: Iterable[Member]) -> int:
    """The level to which the cluster's can be raised."""
    return min((row.features for row in members), default=1)


def outdated(member: Member, members: Iterable[Member]) -> bool:
    """Whether some other member runs a version that knows more."""
    return any(other.features > member.features for other in members)


COMMANDS: tuple[type[Command], ...] = (UpdateVersion, RaiseLevel)
