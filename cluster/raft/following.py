"""The follower's side of the log: entries and snapshots in, acknowledgements out.

The library cuts its log at any message and commits from a snapshot that is still on its way; see appends.py.
"""

from typing import Any

from cluster.raft import appends, dialect, snapshot
from cluster.raft.appends import Impossible, Known
from cluster.raft.codec import Peer
from cluster.raft.desk import Desk
from cluster.raft.messages import Append, Appended, Install, TermHint
from cluster.raft.prevotes import PreVotes

LEARNERS_REPEAT = 2.0  # seconds until a learner says again what it has said; no majority depends on it


class Following:
    def __init__(self, desk: Desk, prevotes: PreVotes) -> None:
        self._desk = desk
        self._prevotes = prevotes
        self._skip_snapshot = False
        self._answered: tuple[str, Appended] | None = None  # to whom, and what, the last time
        self._answered_at = 0.0

    def acknowledge(self, member: str, message: dict[str, Any]) -> None:
        """What the library wants the leader to know, once it is on disk."""
        desk = self._desk
        wanted = message["next_node_idx"]
        if message["reset"] and not message["success"]:
            wanted = appends.jump_back(wanted, desk.journal, desk.committed)
        self._answer(member, dialect.appended_of(message, desk.term, wanted))

    def _answer(self, member: str, answer: Appended) -> None:
        """Most members of a large cluster are learners, and most of what they hear is no news to them."""
        now = self._desk.now()
        lately = (member, answer) == self._answered and now - self._answered_at < LEARNERS_REPEAT
        if lately and answer.success and not self._desk.votes:
            return
        self._answered, self._answered_at = (member, answer), now
        self._desk.promise(member, answer)

    def on_append(self, peer: Peer, append: Append) -> None:
        desk = self._desk
        if not self._leader_speaks(peer, append.term):
            return
        verdict = appends.judge(append, desk.journal, desk.committed)
        if isinstance(verdict, Impossible):
            desk.fatal(f"{peer.id}: {verdict.reason}")
        elif isinstance(verdict, Known):
            desk.deliver(peer, dialect.commit_in(append.term, verdict.commit))
            known = Appended(term=desk.term, next_index=verdict.upto + 1, reset=False, success=True)
            self._answer(peer.id, known)
        else:
            desk.deliver(peer, dialect.entries_in(verdict.append))

    def on_install(self, peer: Peer, install: Install) -> None:
        desk = self._desk
        if not self._leader_speaks(peer, install.term):
            return
        if install.data is not None and install.first:
            index, term = snapshot.peek(install.data)
            # Clearing a log that has it all would drop acknowledged entries behind it.
            self._skip_snapshot = index <= desk.committed or desk.journal.term_at(index) == term
        if install.data is None or self._skip_snapshot:
            desk.deliver(peer, dialect.commit_in(install.term, 0))
        else:
            desk.deliver(peer, dialect.piece_in(install))

    def _leader_speaks(self, peer: Peer, term: int) -> bool:
        """False if it is none: an old one is told so, a second one in our own term cannot be."""
        desk = self._desk
        if term < desk.term:
            desk.say(peer.id, TermHint(term=desk.term))
            return False
        if desk.leads and term == desk.term:
            desk.fatal(f"two leaders in term {term}: {desk.me} and {peer.id}")
            return False
        self._prevotes.saw_leader()
        if not desk.leads:
            desk.peers.leave_voters()
        return True
