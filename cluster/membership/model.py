"""Member, the cluster itself, join tokens, inventory: rows and tables."""

from typing import Any, Literal

from cluster.errors import NotFound
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn

ALONE = "none"  # name of the only member of a cluster that was not enabled; LXD's own word on the wire
THE_CLUSTER = "cluster"  # key of the one row of CLUSTER

Status = Literal["joining", "ready", "evacuated", "leaving"]
GIVEN_ROLES = ("event-hub", "ovn-chassis")  # LXD's; kept and shown, as nothing here depends on them


class Member(Stored, frozen=True):
    """One server of the cluster. Key: `id`, 12 hex digits, the same as its Raft id; never reused."""

    id: str
    name: str
    address: str = ""  # "host:port" of API and Raft; empty until clustering is enabled
    certificate: str = ""  # PEM of its own server certificate: its identity towards the others
    fingerprint: str = ""  # SHA-256 of that certificate
    status: Status = "joining"
    architecture: str = ""
    joined_at: float = 0.0
    description: str = ""
    failure_domain: str = "default"
    config: dict[str, str] = {}
    groups: tuple[str, ...] = ("default",)
    roles: tuple[str, ...] = ()  # those that operators give; who votes is Raft's
    next_certificate: str = ""  # PEM it will have instead, see certificates.py
    next_fingerprint: str = ""
    features: int = 1  # feature level of its version, see features.py
    version: str = ""


class Removed(Stored, frozen=True):
    """A member that was removed. Key: its id. So that others can tell it, whenever it comes back."""

    id: str
    name: str
    certificate: str  # PEM
    removed_at: float


class Cluster(Stored, frozen=True):
    """The cluster as a whole; the certificate is what every member's listener shows, so clients pin one."""

    id: str
    enabled: bool = False
    certificate: str = ""
    certificate_key: str = ""  # secret: journal and snapshots are readable by root only
    features: int = 1  # feature level that all members have


class Token(Stored, frozen=True):
    """A single-use permission to join (kind "member") or to be trusted (kind "client"). Or one to have
    an image (kind "image"), as often as wanted until it expires, or to bring one (kind "upload"): its
    fingerprint is the name then.

    Key: the operation id under which clients see it. The secret is never stored, only its SHA-256.
    """

    id: str
    kind: Literal["member", "client", "image", "upload"]
    name: str
    secret_hash: str
    created_at: float
    expires_at: float = 0.0  # 0: never
    fingerprint: str = ""  # of the certificate a joiner must see
    addresses: tuple[str, ...] = ()
    restricted: bool = False
    projects: tuple[str, ...] = ()


class Inventory(Stored, frozen=True):
    """What a member's host has, as far as placement needs it. Key: member id. GPUs have rows of their own."""

    member: str
    architecture: str
    cpus: int
    memory: int  # bytes


class Group(Stored, frozen=True):
    """A cluster group; membership is kept in the members' rows."""

    name: str
    description: str = ""


MEMBERS: Table[Member] = Table("members", Member)
REMOVED: Table[Removed] = Table("removed_members", Removed)
CLUSTER: Table[Cluster] = Table("cluster", Cluster)
TOKENS: Table[Token] = Table("tokens", Token)
INVENTORIES: Table[Inventory] = Table("inventories", Inventory)
GROUPS: Table[Group] = Table("cluster_groups", Group)

TABLES: tuple[Table[Any], ...] = (MEMBERS, REMOVED, CLUSTER, TOKENS, INVENTORIES, GROUPS)


def members(state: State | Txn) -> list[Member]:
    """All members, by name."""
    return sorted(state.rows(MEMBERS).values(), key=lambda member: member.name)


def member_named(state: State | Txn, name: str) -> Member:
    """Raises NotFound."""
    for member in state.rows(MEMBERS).values():
        if member.name == name:
            return member
    raise NotFound(f"Member not found: {name}", member=name)


def name_of(state: State | Txn, member_id: str) -> str:
    """A member's name for users; its id if it is gone."""
    member = state.find(MEMBERS, member_id)
    return member.name if member else member_id


def the_cluster(state: State | Txn) -> Cluster:
    return state.get(CLUSTER, THE_CLUSTER)


def is_clustered(state: State | Txn) -> bool:
    row = state.find(CLUSTER, THE_CLUSTER)
    return row is not None and row.enabled
