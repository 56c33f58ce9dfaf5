"""Raft commands of warnings."""

from typing import Literal

import msgspec

from cluster.membership.model import MEMBERS
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.warnings.model import WARNINGS, Severity, WarningRow, key_of, warning_with

replace = msgspec.structs.replace


class RaiseWarning(Command, frozen=True, tag="warning.raise"):
    """It was seen, once more if it is known: then it is counted, and new again if it was resolved."""

    uuid: str  # of the row, if it is the first of its kind there
    type: str
    member: str
    message: str
    severity: Severity = "low"
    entity: str = ""
    project: str = ""

    def apply(self, txn: Txn) -> None:
        txn.get(MEMBERS, self.member)
        before = txn.find(WARNINGS, key_of(self.type, self.member, self.entity))
        if before is None:
            row = WarningRow(
                self.uuid,
                self.type,
                self.member,
                self.entity,
                self.project,
                self.severity,
                self.message,
                first_seen=txn.now,
                last_seen=txn.now,
                updated=txn.now,
            )
        else:
            row = replace(
                before,
                severity=self.severity,
                message=self.message,
                last_seen=txn.now,
                updated=txn.now,
                count=before.count + 1,
                status="new" if before.status == "resolved" else before.status,
            )
        txn.put(WARNINGS, row.key, row)


class MarkWarning(Command, frozen=True, tag="warning.mark"):
    """What an operator says of it."""

    uuid: str
    status: Literal["new", "acknowledged"]

    def apply(self, txn: Txn) -> None:
        before = warning_with(txn, self.uuid)
        if before.status != self.status:
            txn.put(WARNINGS, before.key, replace(before, status=self.status, updated=txn.now))


class ResolveWarnings(Command, frozen=True, tag="warning.resolve"):
    """Their causes have ended. Keys that are not there, or resolved already, are passed over."""

    keys: tuple[str, ...]

    def apply(self, txn: Txn) -> None:
        for key in self.keys:
            before = txn.find(WARNINGS, key)
            if before is not None and before.status != "resolved":
                txn.put(WARNINGS, key, replace(before, status="resolved", updated=txn.now))


class DeleteWarning(Command, frozen=True, tag="warning.delete"):
    uuid: str

    def apply(self, txn: Txn) -> None:
        txn.delete(WARNINGS, warning_with(txn, self.uuid).key)


class PruneWarnings(Command, frozen=True, tag="warning.prune"):
    """Forget those that were resolved before that moment, unix seconds."""

    before: float

    def apply(self, txn: Txn) -> None:
        for key, row in sorted(txn.rows(WARNINGS).items()):
            if row.status == "resolved" and row.updated < self.before:
                txn.delete(WARNINGS, key)


def forget_member(txn: Txn, member: str) -> None:
    """Nobody would ever resolve what it said."""
    for key, row in sorted(txn.rows(WARNINGS).items()):
        if row.member == member:
            txn.delete(WARNINGS, key)


COMMANDS: tuple[type[Command], ...] = (
    RaiseWarning,
    MarkWarning,
    ResolveWarnings,
    DeleteWarning,
    PruneWarnings,
)
