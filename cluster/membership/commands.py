"""Raft commands of the cluster's own nouns: the cluster, members, tokens, inventories, groups."""

from typing import Literal

import msgspec

from cluster.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from cluster.membership.model import (
    ALONE,
    CLUSTER,
    GROUPS,
    INVENTORIES,
    MEMBERS,
    REMOVED,
    THE_CLUSTER,
    TOKENS,
    Cluster,
    Group,
    Inventory,
    Member,
    Removed,
    Token,
    is_clustered,
    member_named,
    the_cluster,
)
from cluster.state.command import Command
from cluster.state.txn import Txn

replace = msgspec.structs.replace
REMEMBERED = 64  # removed members that can still be told so; a certificate is some 800 bytes


class FoundCluster(Command, frozen=True, tag="cluster.found"):
    """The first entry of a new log: a cluster of one member, not enabled. Repeating it changes nothing."""

    cluster: Cluster
    member: Member

    def apply(self, txn: Txn) -> None:
        if txn.find(CLUSTER, THE_CLUSTER) is None:
            txn.insert(CLUSTER, THE_CLUSTER, self.cluster)
            txn.insert(MEMBERS, self.member.id, self.member)
            txn.insert(GROUPS, "default", Group("default", "Default cluster group"))


class EnableCluster(Command, frozen=True, tag="cluster.enable"):
    """Give the only member a name and an address; from now on others may join."""

    member: str  # id
    name: str
    address: str
    certificate: str
    certificate_key: str

    def apply(self, txn: Txn) -> None:
        if is_clustered(txn):
            raise Invalid("This server is already clustered")
        check_name(self.name)
        row = txn.get(MEMBERS, self.member)
        txn.put(MEMBERS, row.id, replace(row, name=self.name, address=self.address, status="ready"))
        enabled = replace(
            the_cluster(txn), enabled=True, certificate=self.certificate, certificate_key=self.certificate_key
        )
        txn.put(CLUSTER, THE_CLUSTER, enabled)


class SetMemberAddress(Command, frozen=True, tag="member.address"):
    """A member moved to another address; peers dial the new one as soon as they have applied this."""

    member: str
    address: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        txn.put(MEMBERS, row.id, replace(row, address=self.address))


class CreateToken(Command, frozen=True, tag="token.create"):
    token: Token

    def apply(self, txn: Txn) -> None:
        if self.token.kind == "member":
            _supersede(txn, self.token.name)
            _refuse_taken_name(txn, self.token.name)
            for row in list(txn.rows(TOKENS).values()):
                if row.kind == "member" and row.name == self.token.name:
                    txn.delete(TOKENS, row.id)  # a newer token for a name replaces the older one, as in LXD
        txn.insert(TOKENS, self.token.id, self.token)


class RevokeToken(Command, frozen=True, tag="token.revoke"):
    id: str

    def apply(self, txn: Txn) -> None:
        txn.delete(TOKENS, self.id)


class ExpireTokens(Command, frozen=True, tag="token.expire"):
    """Drop tokens whose time is over; a token that is past it is refused anyway."""

    def apply(self, txn: Txn) -> None:
        for row in list(txn.rows(TOKENS).values()):
            if row.expires_at and row.expires_at <= txn.now:
                txn.delete(TOKENS, row.id)


class JoinMember(Command, frozen=True, tag="member.join"):
    """Spend a token and record the member that holds it as joining."""

    secret_hash: str
    member: Member

    def apply(self, txn: Txn) -> None:
        new = self.member
        token = use_token(txn, "member", self.secret_hash)
        if token.name != new.name:
            raise Forbidden(f"The join token is for {token.name!r}, not for {new.name!r}")
        _refuse_taken_name(txn, new.name)
        if new.features < (level := the_cluster(txn).features):
            raise Conflict(
                "The joining server version doesn't match: "
                f"it has feature level {new.features}, the cluster {level}; update it first"
            )
        if txn.find(MEMBERS, new.id) is not None:
            raise AlreadyExists(f"A member with this id exists: {new.id}")
        if any(row.address == new.address for row in txn.rows(MEMBERS).values()):
            raise AlreadyExists(f"A member with this address exists: {new.address}", address=new.address)
        if any(row.fingerprint == new.fingerprint for row in txn.rows(MEMBERS).values()):
            raise AlreadyExists("A member with this certificate exists", fingerprint=new.fingerprint)
        txn.insert(MEMBERS, new.id, replace(new, status="joining", joined_at=txn.now))
        for row in list(txn.rows(REMOVED).values()):
            if row.certificate == new.certificate:
                txn.delete(REMOVED, row.id)  # the same server under a new id: no more to be told


class ReadyMember(Command, frozen=True, tag="member.ready"):
    """A member has the state and its host is prepared: it may be given instances."""

    member: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        if row.status == "joining":
            txn.put(MEMBERS, row.id, replace(row, status="ready"))


class UpdateMember(Command, frozen=True, tag="member.update"):
    """Change what an operator may change of a member."""

    member: str
    description: str
    failure_domain: str
    config: dict[str, str]
    groups: tuple[str, ...]
    roles: tuple[str, ...] = ()

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        for group in self.groups:
            txn.get(GROUPS, group)
        txn.put(
            MEMBERS,
            row.id,
            replace(
                row,
                description=self.description,
                failure_domain=self.failure_domain or "default",
                config=self.config,
                groups=self.groups,
                roles=self.roles,
            ),
        )


class RenameMember(Command, frozen=True, tag="member.rename"):
    member: str
    name: str

    def apply(self, txn: Txn) -> None:
        check_name(self.name)
        row = txn.get(MEMBERS, self.member)
        if row.name != self.name:
            _refuse_taken_name(txn, self.name)
        txn.put(MEMBERS, row.id, replace(row, name=self.name))


class EvacuateMember(Command, frozen=True, tag="member.evacuate"):
    """From here on it is given no instances. Repeating it changes nothing."""

    member: str

    def apply(self, txn: Txn) -> None:
        _put_to_use(txn, self.member, "evacuated")


class RestoreMember(Command, frozen=True, tag="member.restore"):
    """It takes instances again. Repeating it changes nothing."""

    member: str

    def apply(self, txn: Txn) -> None:
        _put_to_use(txn, self.member, "ready")


def _put_to_use(txn: Txn, member: str, status: Literal["ready", "evacuated"]) -> None:
    row = txn.get(MEMBERS, member)
    if row.status not in ("ready", "evacuated"):
        raise Invalid("Cannot evacuate or restore a pending cluster member", member=row.name)
    txn.put(MEMBERS, row.id, replace(row, status=status))


class ReportInventory(Command, frozen=True, tag="member.inventory"):
    inventory: Inventory

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.inventory.member)
        txn.put(INVENTORIES, row.id, self.inventory)
        txn.put(MEMBERS, row.id, replace(row, architecture=self.inventory.architecture))


def leave(txn: Txn, member: str) -> None:
    """Begin a member's removal: it gets no vote and no instances. Raises Invalid for the last one."""
    row = txn.get(MEMBERS, member)
    others = [other for other in txn.rows(MEMBERS).values() if other.status in ("ready", "evacuated")]
    if not any(other.id != member for other in others):
        raise Invalid("Node is the only node in the cluster", member=row.name)
    txn.put(MEMBERS, row.id, replace(row, status="leaving"))


def remove(txn: Txn, member: str) -> None:
    """Forget a member that has no vote: its certificate is distrusted from here on.

    What remains is a note by which it can be told, at most `REMEMBERED` of them. Raises Conflict for a member
    that is not leaving: it may have a vote.
    """
    row = txn.get(MEMBERS, member)
    if row.status != "leaving":
        raise Conflict(f"Member {row.name} is not leaving", member=row.name)
    txn.delete(MEMBERS, member)
    if txn.find(INVENTORIES, member) is not None:
        txn.delete(INVENTORIES, member)
    txn.insert(REMOVED, row.id, Removed(row.id, row.name, row.certificate, txn.now))
    for old in sorted(txn.rows(REMOVED).values(), key=lambda old: (old.removed_at, old.id))[:-REMEMBERED]:
        txn.delete(REMOVED, old.id)


def use_token(txn: Txn, kind: str, secret_hash: str) -> Token:
    """Take the token out of the state. Raises Forbidden if there is none, or its time is over."""
    for row in txn.rows(TOKENS).values():
        if row.kind == kind and row.secret_hash == secret_hash:
            if row.expires_at and row.expires_at <= txn.now:
                raise Forbidden("The token has expired")
            txn.delete(TOKENS, row.id)
            return row
    raise Forbidden("No such token: it is wrong, was used or revoked")


def check_name(name: str) -> None:
    """Raises Invalid unless `name` could be a host name and is not LXD's word for "not clustered"."""
    good = 0 < len(name) <= 63 and all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
    if not good or name == ALONE or not name[0].isalnum() or not name[-1].isalnum():
        raise Invalid(f"Invalid member name {name!r}: letters, digits and dashes, at most 63", name=name)


def _supersede(txn: Txn, name: str) -> None:
    """A new token for a name: whoever was about to join under it has failed, and is removed."""
    for row in list(txn.rows(MEMBERS).values()):
        if row.name == name and row.status == "joining":
            txn.put(MEMBERS, row.id, replace(row, name=f"{name}.{row.id}", status="leaving"))


def _refuse_taken_name(txn: Txn, name: str) -> None:
    check_name(name)
    try:
        member_named(txn, name)
    except NotFound:
        return
    raise Conflict(f"The cluster already has a member with name: {name}", member=name)


COMMANDS: tuple[type[Command], ...] = (
    FoundCluster,
    EnableCluster,
    SetMemberAddress,
    CreateToken,
    RevokeToken,
    ExpireTokens,
    JoinMember,
    ReadyMember,
    UpdateMember,
    RenameMember,
    EvacuateMember,
    RestoreMember,
    ReportInventory,
)
