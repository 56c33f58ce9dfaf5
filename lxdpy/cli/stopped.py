"""A member whose daemon is stopped: its files, read and locked against a daemon's start."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Invalid
from cluster.membership import identity as identities
from cluster.membership.identity import Identity
from cluster.membership.model import MEMBERS, Member, is_clustered, members, name_of
from cluster.raft.recover import Findings, inspect, replay
from cluster.state.txn import State
from lxdpy.host.lock import only_one
from lxdpy.resources.tables import new_machine


@dataclass(frozen=True)
class Stopped:
    """`state` has all entries of the log, those included of which it is unknown whether they count."""

    root: Path  # $LXD_DIR
    identity: Identity
    findings: Findings
    state: State

    @property
    def name(self) -> str:
        return name_of(self.state, self.identity.member_id)

    @property
    def log(self) -> Path:
        return log_of(self.root)

    @property
    def members(self) -> list[Member]:
        return members(self.state)

    def address(self, member: str) -> str:
        """Where the daemon would look for a member (by id)."""
        known = self.identity.addresses().get(member, "")
        row = self.state.find(MEMBERS, member)
        return known or (row.address if row else "")

    def names(self, ids: list[str]) -> str:
        return ", ".join(sorted(name_of(self.state, member) for member in ids))


def log_of(root: Path) -> Path:
    return root / "cluster" / "raft"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """No daemon runs on `root` meanwhile. Raises Conflict, OSError."""
    lock = only_one(root)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def stopped(root: Path) -> Iterator[Stopped]:
    """Raises Conflict while the daemon runs, Invalid if there is no server's state, Damaged."""
    if not root.is_dir():
        raise Invalid(f"{root} is not the state directory of a server")
    with locked(root):
        yield look(root)


def look(root: Path) -> Stopped:
    identity = identities.load(root)
    if identity is None or not (log_of(root) / "journal").exists():
        raise Invalid(f"{root} holds no state of a server")
    return Stopped(root, identity, inspect(log_of(root)), replay(log_of(root), new_machine()))


def clustered(member: Stopped) -> Stopped:
    """Raises Invalid for a server that is no cluster's."""
    if not is_clustered(member.state):
        raise Invalid(f"{member.root}: this server isn't part of a cluster")
    return member
