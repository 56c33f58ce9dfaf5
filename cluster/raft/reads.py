"""ReadIndex: linearizable reads at the leader without writing to the log.

The commit index is remembered, then a majority is asked whether this is still the leader of its term. Who
asks while a round is under way shares the next one, so any number of readers costs one round trip.
"""

from collections.abc import Callable, Iterable

import msgspec

from cluster.raft.codec import Peer
from cluster.raft.desk import Desk
from cluster.raft.messages import Ping, Pong, TermHint

ROUND_LASTS = 1.0  # seconds until a round without a majority is given up

Reader = Callable[[int | None], None]  # called with an index, or None: ask whoever leads now


class Round(msgspec.Struct, frozen=True):
    number: int
    index: int
    term: int
    started: float
    readers: tuple[Reader, ...]


class Rounds:
    """One round at a time, and who waits for the next."""

    def __init__(self) -> None:
        self._waiting: list[Reader] = []
        self._round: Round | None = None
        self._number = 0
        self._confirmed: set[str] = set()

    def join(self, reader: Reader) -> None:
        self._waiting.append(reader)

    @property
    def idle(self) -> bool:
        """Somebody waits and no round is under way."""
        return self._round is None and bool(self._waiting)

    def start(self, index: int, term: int, now: float) -> Ping:
        self._number += 1
        self._confirmed = set()
        self._round = Round(self._number, index, term, now, tuple(self._waiting))
        self._waiting = []
        return Ping(term=term, round=self._number)

    def confirm(self, voter: str, term: int, number: int) -> None:
        """A pong. Only those of this round count: an older one says nothing about now."""
        if self._round is not None and (self._round.number, self._round.term) == (number, term):
            self._confirmed.add(voter)

    def finish(self, quorum: Callable[[Iterable[str]], bool]) -> None:
        """Answer the readers of this round if a majority confirmed it."""
        if self._round is not None and quorum(self._confirmed):
            done, self._round = self._round, None
            for reader in done.readers:
                reader(done.index)

    def expired(self, now: float) -> bool:
        return self._round is not None and now - self._round.started > ROUND_LASTS

    def give_up(self) -> None:
        """Not the leader any more, or cut off: all readers must ask again."""
        readers = (*(self._round.readers if self._round else ()), *self._waiting)
        self._round, self._waiting = None, []
        for reader in readers:
            reader(None)


class Reads:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._rounds = Rounds()

    def read_index(self, reader: Reader) -> None:
        """Call `reader` with the index to wait for, once this is surely the leader; with None if it is not.

        A leader that has not yet committed in its own term does not know what its predecessors committed.
        """
        desk = self._desk
        if desk.failed or not desk.leads or desk.journal.term_at(desk.committed) != desk.term:
            reader(None)
            return
        self._rounds.join(reader)
        self._advance()

    def give_up(self) -> None:
        self._rounds.give_up()

    def before_pass(self) -> None:
        if self._rounds.expired(self._desk.now()):
            self._rounds.give_up()

    def on_ping(self, peer: Peer, ping: Ping) -> None:
        term = self._desk.term
        if ping.term < term:
            self._desk.say(peer.id, TermHint(term=term))
        elif ping.term == term:
            self._desk.say(peer.id, Pong(term=term, round=ping.round))

    def on_pong(self, peer: Peer, pong: Pong) -> None:
        desk = self._desk
        if desk.leads and pong.term == desk.term and peer.id in desk.peers.voters():
            self._rounds.confirm(peer.id, pong.term, pong.round)
            self._rounds.finish(desk.peers.quorum)
            self._advance()

    def _advance(self) -> None:
        desk = self._desk
        while self._rounds.idle:
            ping = self._rounds.start(desk.committed, desk.term, desk.now())
            for member in desk.peers.linked_voters():
                desk.say(member, ping)
            self._rounds.finish(desk.peers.quorum)
