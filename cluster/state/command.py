"""Commands: what changes the state. Proposals: a command on its way into the log."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar

import msgspec

if TYPE_CHECKING:
    from cluster.state.txn import Txn


class Command(
    msgspec.Struct, frozen=True, tag_field="command", omit_defaults=True, forbid_unknown_fields=True
):
    """One change of the state, applied by every member at the same place in the log.

    `apply` is pure: ids, times and random choices are fields, filled in by the proposer. It writes through
    `txn`, or raises an `Error`, which refuses the command: then nothing is changed, on any member. Its effect
    is frozen once released; new behaviour is a new tag.
    """

    since: ClassVar[int] = 1  # the feature level that brought the command

    def level(self) -> int:
        """What members must know to apply this. To be overridden where a field came later than its command:
        `return 3 if self.mode else self.since`."""
        return self.since

    def apply(self, txn: "Txn") -> None:
        raise TypeError(f"{type(self).__name__} has no apply()")


class Proposal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command with what the log needs to apply it once. A further field needs a further level."""

    request_id: str
    proposer: str  # member id
    proposed_at: float  # unix seconds, the proposer's clock; the only time a command may use
    command: msgspec.Raw
    by: dict[str, str] = {}  # the caller on whose behalf: shown as requestor of lifecycle events
    level: int = 1  # the feature level that a member must have to apply it


CALLER: ContextVar[dict[str, str] | None] = ContextVar("caller", default=None)


def entry_of(command: Command, *, request_id: str, proposer: str, proposed_at: float) -> bytes:
    """A log entry's bytes. The caller is taken from `CALLER`, so that it follows tasks by itself."""
    proposal = Proposal(
        request_id=request_id,
        proposer=proposer,
        proposed_at=proposed_at,
        command=msgspec.Raw(msgspec.msgpack.encode(command)),
        by=CALLER.get() or {},
        level=command.level(),
    )
    return msgspec.msgpack.encode(proposal)
