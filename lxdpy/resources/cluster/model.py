"""Bodies of /1.0/cluster and of what members say to each other while one joins."""

from typing import Any

import msgspec


class MemberConfigKey(msgspec.Struct):
    """A pool's or network's key that is particular to the joining member."""

    entity: str = ""  # storage-pool | network
    name: str = ""
    key: str = ""
    value: str = ""
    description: str = ""


class ClusterPut(msgspec.Struct):
    server_name: str = ""
    enabled: bool = False
    member_config: list[MemberConfigKey] | None = None
    cluster_address: str = ""
    cluster_certificate: str = ""
    cluster_password: str = ""  # the secret of a join token
    cluster_token: str = ""  # the whole token: address, certificate and secret in one
    server_address: str = ""


class MembersPost(msgspec.Struct):
    server_name: str = ""


class MemberPost(msgspec.Struct):
    server_name: str = ""


class MemberPut(msgspec.Struct):
    roles: list[str] | None = None
    failure_domain: str | None = None
    description: str | None = None
    config: dict[str, str] | None = None
    groups: list[str] | None = None


class MemberStatePost(msgspec.Struct):
    action: str = ""  # evacuate | restore
    mode: str = ""  # stop | migrate | live-migrate; empty: as the instances' cluster.evacuate says


class GroupPut(msgspec.Struct):
    description: str | None = None
    members: list[str] | None = None


class GroupsPost(msgspec.Struct):
    name: str = ""
    description: str = ""
    members: list[str] | None = None


class ClusterCertificatePut(msgspec.Struct):
    cluster_certificate: str = ""  # PEM
    cluster_certificate_key: str = ""


class CertificatePost(msgspec.Struct):
    """A member's own certificate and key, PEM; empty: it makes them itself."""

    certificate: str = ""
    key: str = ""


class Trust(msgspec.Struct, frozen=True):
    """Asked of every member before another one shows a new certificate."""

    member: str  # id
    fingerprint: str


class Accept(msgspec.Struct, frozen=True):
    """What a joiner asks of a member: POST /internal/1.0/cluster/accept."""

    secret: str
    name: str
    member_id: str
    address: str
    certificate: str  # PEM; must be the one of the connection
    architecture: str
    features: int = 1
    version: str = ""
    now: float = 0.0  # unix seconds, by the joiner's clock


class Known(msgspec.Struct, frozen=True):
    address: str
    certificate: str


class Accepted(msgspec.Struct, frozen=True):
    """What the joiner then knows: whom to follow, and what its listener shows."""

    cluster_id: str
    members: dict[str, Known]
    voters: list[str]
    certificate: str
    certificate_key: str
    index: int = 0  # of the state in which the members were these


Json = dict[str, Any]
