"""Raft commands of cluster groups. Membership is kept in the members' rows."""

import msgspec

from cluster.errors import Conflict, Forbidden, Invalid
from cluster.membership.model import GROUPS, MEMBERS, Group
from cluster.state.command import Command
from cluster.state.txn import Txn

replace = msgspec.structs.replace
DEFAULT = "default"


class CreateGroup(Command, frozen=True, tag="cluster-group.create"):
    group: Group
    members: tuple[str, ...]

    def apply(self, txn: Txn) -> None:
        txn.insert(GROUPS, self.group.name, self.group)
        assign(txn, self.group.name, self.members)


class UpdateGroup(Command, frozen=True, tag="cluster-group.update"):
    name: str
    description: str
    members: tuple[str, ...]

    def apply(self, txn: Txn) -> None:
        txn.replace(GROUPS, self.name, Group(self.name, self.description))
        assign(txn, self.name, self.members)


class RenameGroup(Command, frozen=True, tag="cluster-group.rename"):
    name: str
    new: str

    def apply(self, txn: Txn) -> None:
        if self.name == DEFAULT:
            raise Forbidden('The "default" group cannot be renamed')
        row = txn.get(GROUPS, self.name)
        txn.insert(GROUPS, self.new, replace(row, name=self.new))
        txn.delete(GROUPS, self.name)
        for member in list(txn.rows(MEMBERS).values()):
            names = tuple(self.new if name == self.name else name for name in member.groups)
            txn.put(MEMBERS, member.id, replace(member, groups=names))


class DeleteGroup(Command, frozen=True, tag="cluster-group.delete"):
    name: str

    def apply(self, txn: Txn) -> None:
        txn.get(GROUPS, self.name)
        if self.name == DEFAULT:
            raise Forbidden('The "default" cluster group cannot be removed')
        if any(self.name in member.groups for member in txn.rows(MEMBERS).values()):
            raise Conflict("Only empty cluster groups can be removed")
        txn.delete(GROUPS, self.name)


def assign(txn: Txn, group: str, wanted: tuple[str, ...]) -> None:
    """Make `wanted` (ids) exactly the group's members. Raises Invalid if one would be in no group."""
    for member_id in wanted:
        txn.get(MEMBERS, member_id)
    for member in list(txn.rows(MEMBERS).values()):
        others = tuple(name for name in member.groups if name != group)
        names = (*others, group) if member.id in wanted else others
        if not names:
            raise Invalid(f"Member {member.name} must belong to at least one group", member=member.name)
        if set(names) != set(member.groups):
            txn.put(MEMBERS, member.id, replace(member, groups=names))


COMMANDS: tuple[type[Command], ...] = (CreateGroup, UpdateGroup, RenameGroup, DeleteGroup)
