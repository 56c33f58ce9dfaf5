"""Raft commands by which a member goes or gets another name: here and not in `cluster.membership`, as other
nouns have to let go, or know it by its name.

A member goes in two steps. First it is leaving: it gets no instances and no vote any more, and hands on the
lead. Once it has no vote the leader has it removed: its certificate is distrusted from that entry on.
"""

from collections.abc import Callable

from cluster.errors import Invalid
from cluster.membership.commands import RenameMember, leave, remove
from cluster.membership.model import MEMBERS
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.gpu_queue.commands import rename_target
from lxdpy.resources.gpus import commands as gpus
from lxdpy.resources.images import commands as images
from lxdpy.resources.instances import commands as instances
from lxdpy.resources.migration.commands import rename_origin
from lxdpy.resources.networks import commands as networks
from lxdpy.resources.server import commands as server
from lxdpy.resources.storage_pools import commands as storage_pools
from lxdpy.resources.storage_volumes import commands as storage_volumes
from lxdpy.resources.warnings import commands as warnings

SHOWN = 10  # of the names of what a member still has

FORGET: tuple[Callable[[Txn, str], None], ...] = (
    instances.forget_member,
    gpus.forget_member,
    images.forget_member,
    storage_volumes.forget_member,
    storage_pools.forget_member,
    networks.forget_member,
    server.forget_member,
    warnings.forget_member,
)
HELD: dict[str, Callable[[Txn, str], list[str]]] = {
    "instances": instances.held_by,
    "images": images.held_by,
    "custom volumes": storage_volumes.held_by,
}


class LeaveMember(Command, frozen=True, tag="member.leave"):
    """Begin the removal of a member; without `forced`, only of one that nothing would be lost with."""

    member: str
    forced: bool = False

    def apply(self, txn: Txn) -> None:
        row = txn.get(MEMBERS, self.member)
        for noun, held_by in HELD.items():
            if not self.forced and (held := held_by(txn, self.member)):
                names = ", ".join(sorted(held)[:SHOWN])
                raise Invalid(f"Node still has the following {noun}: {names}", member=row.name)
        leave(txn, self.member)


class RemoveMember(Command, frozen=True, tag="member.remove"):
    """Forget a leaving member that has no vote any more, and all that only it had."""

    member: str

    def apply(self, txn: Txn) -> None:
        remove(txn, self.member)
        for forget in FORGET:
            forget(txn, self.member)


class NameMember(Command, frozen=True, tag="member.name"):
    """Give a member another name, also for instances that are to come back to it, or wait for its GPUs."""

    member: str
    name: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(MEMBERS, self.member).name
        RenameMember(self.member, self.name).apply(txn)
        rename_origin(txn, before, self.name)
        rename_target(txn, before, self.name)


COMMANDS: tuple[type[Command], ...] = (LeaveMember, RemoveMember, NameMember)
