"""What members say to each other on a Raft link: one msgpack frame each, decoded strictly.

Terms are on every message that the library forgets them on. The sender is never part of a message: it is
whoever owns the certificate of the link.
"""

from typing import Any

import msgspec

from cluster.errors import ErrorInfo
from cluster.raft.snapshot import Entry


class Message(msgspec.Struct, frozen=True, array_like=True, tag_field="type"):
    """Base of all."""


class Hello(Message, frozen=True, tag=0):
    """First frame of a link, from who dialled it: whom it wants, and who it is.

    The certificate proves the latter; but a server that was removed and joined again has had several ids.
    """

    cluster: str
    to: str
    me: str


class Welcome(Message, frozen=True, tag=1):
    """The only answer ever sent back on a link: the hello was accepted, the link is up."""


class Dismissed(Message, frozen=True, tag=17):
    """Instead of a welcome: whoever dialled was removed from the cluster, for good."""


class Append(Message, frozen=True, tag=2):
    """Leader to follower: entries after `previous_index`; none is a heartbeat."""

    term: int
    commit: int
    previous_index: int
    previous_term: int
    entries: list[Entry]


class Install(Message, frozen=True, tag=3):
    """Leader to follower: a piece of a snapshot. No data: one is being made."""

    term: int
    data: bytes | None
    first: bool = False
    last: bool = False


class Appended(Message, frozen=True, tag=4):
    """Follower to leader: `next_index` is what it wants next; with `success`, all before it is on disk."""

    term: int
    next_index: int
    reset: bool
    success: bool


class RequestVote(Message, frozen=True, tag=5):
    term: int
    last_index: int
    last_term: int


class Vote(Message, frozen=True, tag=6):
    term: int


class TimeoutNow(Message, frozen=True, tag=7):
    """Leader to its successor: campaign at once."""

    term: int


class PreVote(Message, frozen=True, tag=8):
    """Would you vote for me in `term`? Asked before the term is raised, so that it is raised rarely."""

    term: int
    round: int
    last_index: int
    last_term: int


class PreVoted(Message, frozen=True, tag=9):
    term: int
    round: int
    granted: bool


class TermHint(Message, frozen=True, tag=10):
    """To who speaks in an old term."""

    term: int


class Ping(Message, frozen=True, tag=11):
    """Am I still the leader of this term?"""

    term: int
    round: int


class Pong(Message, frozen=True, tag=12):
    term: int
    round: int


class Forward(Message, frozen=True, tag=13):
    """A proposal for the leader's log. `number` is the sender's, for the answer."""

    number: int
    entry: bytes


class ReadRequest(Message, frozen=True, tag=14):
    """Which index must I have applied, to have seen all that was acknowledged before now?"""

    number: int


class Answer(Message, frozen=True, tag=15):
    """To Forward and ReadRequest. `index` None: `taken` says whether it may have been done nevertheless."""

    number: int
    index: int | None = None
    error: ErrorInfo | None = None
    taken: bool = False


class Cast(Message, frozen=True, tag=16):
    """Gossip: best effort, in order, never stored."""

    body: dict[str, Any]


Any_ = (
    Hello | Welcome | Append | Install | Appended | RequestVote | Vote | TimeoutNow | PreVote | PreVoted
    | TermHint | Ping | Pong | Forward | ReadRequest | Answer | Cast | Dismissed
)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Any_).decode
