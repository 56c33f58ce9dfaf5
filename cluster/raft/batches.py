"""Many proposals, one log entry: what a leader does with all that is proposed while its disk is busy."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from cluster.errors import ErrorInfo

MAX_PROPOSALS = 256  # in one entry
MAX_BYTES = 960 << 10  # of proposals in one entry: with packing, below the library's message size
MAX_ENTRY = 900 << 10  # of one proposal
IN_FLIGHT = 2  # entries: one on its way to the disks while the next is collected
MAX_WAITING = 10_000  # proposals; more are turned away


class Reply(msgspec.Struct, frozen=True):
    """What became of a proposal: applied at `index`, with its refusal if any; or not, as far as known here.

    Without an index, `taken` says whether it may be applied nevertheless, later.
    """

    index: int | None = None
    error: ErrorInfo | None = None
    taken: bool = False


NOT_TAKEN = Reply()
UNKNOWN = Reply(taken=True)

OnReply = Callable[[Reply], None]
Pending = tuple[bytes, OnReply]
# Puts an entry into the log; calls back with one reply per proposal, or with one reply for all.
Commit = Callable[[bytes, Callable[[Sequence[Reply] | Reply], None]], None]


def pack(proposals: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(proposals)


_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


def unpack(blob: bytes) -> list[bytes]:
    return _unpack(blob)


class Batches:
    """The leader's queue of proposals. `pause` keeps them waiting while leadership is handed over."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: deque[Pending] = deque()
        self._flying: dict[int, list[Pending]] = {}
        self._number = 0
        self.paused = False

    def __len__(self) -> int:
        return len(self._waiting) + sum(map(len, self._flying.values()))

    @property
    def flying(self) -> bool:
        return bool(self._flying)

    def add(self, proposal: bytes, reply: OnReply) -> None:
        if len(self._waiting) >= MAX_WAITING:
            reply(NOT_TAKEN)
            return
        self._waiting.append((proposal, reply))

    def pump(self) -> None:
        """Put into the log what may go."""
        while self._waiting and len(self._flying) < IN_FLIGHT and not self.paused:
            batch = self._collect()
            self._number += 1
            number = self._number
            self._flying[number] = batch
            self._commit(pack([proposal for proposal, _ in batch]), partial(self._done, number))

    def _collect(self) -> list[Pending]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and len(batch) < MAX_PROPOSALS:
            size += len(self._waiting[0][0])
            if size > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _done(self, number: int, replies: Sequence[Reply] | Reply) -> None:
        batch = self._flying.pop(number, None)
        if batch is None:
            return  # already answered, when this member stepped down
        if isinstance(replies, Reply):
            replies = [replies] * len(batch)
        for (_, reply), answer in zip(batch, replies, strict=True):
            reply(answer)

    def give_up(self) -> None:
        """Not the leader any more: entries in the log may still be committed by the next one."""
        flying, self._flying = self._flying, {}
        waiting, self._waiting = self._waiting, deque()
        for batch in flying.values():
            for _, reply in batch:
                reply(UNKNOWN)
        for _, reply in waiting:
            reply(NOT_TAKEN)
