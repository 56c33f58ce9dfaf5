"""The leader's side of the log: entries and snapshots out, acknowledgements in.

The library counts acknowledgements of any term, goes back at each of them, and asks for one entry less per
round trip; while a snapshot is being made it floods whoever waits for it.
"""

from typing import Any

from cluster.raft import dialect
from cluster.raft.codec import Peer
from cluster.raft.desk import Desk
from cluster.raft.messages import Append, Appended
from cluster.raft.prevotes import QUIET

LEARNERS_HEARTBEAT = 0.3  # seconds at least: every other one. Who has no vote need not miss its leader soon


class Leading:
    def __init__(self, desk: Desk) -> None:
        self.match: dict[str, int] = {}  # member → highest index known to be on its disk
        self._desk = desk
        self._sent_next: dict[str, int] = {}  # next index after all that was sent, whatever is acknowledged
        self._heard: dict[str, float] = {}
        self._beats: dict[str, tuple[Append, float]] = {}  # the last without entries, and when it was said

    def begin(self) -> None:
        """In a new term nothing is known of anybody."""
        self.match.clear()
        self._sent_next.clear()
        self._heard.clear()
        self._beats.clear()

    def link_changed(self, member: str) -> None:
        """What was on its way may be lost."""
        self._sent_next.pop(member, None)
        self._beats.pop(member, None)

    def dropped(self, member: str) -> None:
        self.match.pop(member, None)
        self._sent_next.pop(member, None)
        self._beats.pop(member, None)

    def has_majority(self) -> bool:
        """A majority has acknowledged something not long ago."""
        since = self._desk.now() - QUIET
        return self._desk.peers.quorum(member for member, heard in self._heard.items() if heard > since)

    def send(self, member: str, message: dict[str, Any]) -> bool:
        """What the library wants to send of its log. False: it has to try again."""
        desk = self._desk
        if "transmission" in message:
            desk.fatal("an entry is larger than a message may be")
            return False
        if "prevLogIdx" not in message:
            install = dialect.install_of(message)
            desk.say(member, install)
            if install.data is None:
                # No snapshot is ready; the library would repeat this in a loop until its next heartbeat.
                desk.peers.stall(member)
            return True
        append = dialect.append_of(message)
        if append is None:
            return False
        if append.entries:
            self._sent_next[member] = append.entries[-1][1] + 1
        elif self._knows(member, append):
            return True
        desk.say(member, append)
        return True

    def _knows(self, member: str, beat: Append) -> bool:
        """Whether a learner was told the same not long ago: most members of a large cluster are learners."""
        now = self._desk.now()
        before, at = self._beats.get(member, (None, 0.0))
        if before == beat and now - at < LEARNERS_HEARTBEAT and self._desk.peers.learns(member):
            return True
        self._beats[member] = (beat, now)
        return False

    def on_appended(self, peer: Peer, answer: Appended) -> None:
        desk = self._desk
        if desk.follow(peer, answer.term):
            return
        if not desk.leads or answer.term != desk.term:
            return
        if not desk.peers.gets_log(peer.id) or answer.next_index - 1 > desk.journal.last:
            return
        self._heard[peer.id] = desk.now()
        if answer.success:
            self._acknowledged(peer, answer.next_index)
        elif not answer.reset:
            desk.deliver(peer, dialect.acknowledgement(answer.next_index, reset=False, success=False))
        elif answer.next_index > self.match.get(peer.id, 0):  # an older reset was overtaken
            self._sent_next[peer.id] = answer.next_index
            desk.deliver(peer, dialect.acknowledgement(answer.next_index, reset=True, success=False))

    def _acknowledged(self, peer: Peer, next_index: int) -> None:
        self.match[peer.id] = max(self.match.get(peer.id, 0), next_index - 1)
        self._desk.deliver(peer, dialect.acknowledgement(next_index, reset=False, success=True))
        sent = self._sent_next.get(peer.id, 0)
        if sent > next_index:  # the library would send again what is on its way
            self._desk.deliver(peer, dialect.acknowledgement(sent, reset=True, success=False))
