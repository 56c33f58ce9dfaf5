"""Storage pools: rows and bodies."""

from typing import Literal

from cluster.state.table import Stored, Table

Status = Literal["Pending", "Created", "Errored"]


class PoolMember(Stored, frozen=True):
    """A pool on one member: the keys that are its own (source, size), and how far it got."""

    config: dict[str, str] = {}
    status: Status = "Pending"
    error: str = ""
    kind: str = ""  # of the error


class Pool(Stored, frozen=True):
    """Key: name. `members` by member id; each makes its part once it has applied status Created."""

    name: str
    driver: str
    description: str = ""
    config: dict[str, str] = {}  # without the members' own keys
    status: Status = "Pending"
    members: dict[str, PoolMember] = {}


def errored(pool: Pool) -> bool:
    """Whether some member failed to make its part: creating it again goes on from there."""
    return any(own.status == "Errored" for own in pool.members.values())


POOLS: Table[Pool] = Table("storage_pools", Pool)
# Deleted ones of which `members` have not yet taken their part down. Key: "name@index" of the deletion.
GONE_POOLS: Table[Pool] = Table("gone_pools", Pool)
OWN_KEYS = ("source", "size", "volatile.initial_source")  # keys that differ between members
