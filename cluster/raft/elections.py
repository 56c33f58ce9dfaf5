"""Elections: the library's, each preceded by a pre-vote of ours; old leaders are told of newer terms."""

from cluster.raft import dialect
from cluster.raft.codec import Peer
from cluster.raft.desk import Desk
from cluster.raft.leading import Leading
from cluster.raft.messages import PreVote, PreVoted, RequestVote, TermHint, TimeoutNow, Vote
from cluster.raft.prevotes import PreVotes


class Elections:
    def __init__(self, desk: Desk, leading: Leading, prevotes: PreVotes) -> None:
        self._desk = desk
        self._leading = leading
        self._prevotes = prevotes
        self._counted: set[tuple[str, int]] = set()  # who voted for this member in which term

    def stood(self) -> None:
        """The library made this member a candidate."""
        self._counted.clear()
        self._prevotes.arm()

    def vote(self, member: str, vote: Vote) -> None:
        self._prevotes.arm()  # give the one we vote for its time
        self._desk.promise(member, vote)

    def before_pass(self) -> None:
        desk = self._desk
        if desk.leads or not desk.votes or not self._prevotes.due:
            return
        desk.peers.leave_voters()
        question = self._prevotes.ask(desk.term, desk.journal.last, desk.journal.last_term)
        for member in desk.peers.linked_voters():
            desk.say(member, question)
        if desk.peers.quorum(()):
            self.campaign()

    def campaign(self) -> None:
        """Let the library hold an election at its next pass."""
        self._desk.peers.join_voters()
        self._desk.deliver(self._desk.leader, dialect.campaign_now(self._desk.term))

    def on_prevote(self, peer: Peer, question: PreVote) -> None:
        desk = self._desk
        theirs = (question.last_term, question.last_index)
        mine = (desk.journal.last_term, desk.journal.last)
        leads = desk.leads and self._leading.has_majority()
        granted = self._prevotes.quiet and not leads and question.term > desk.term and theirs >= mine
        desk.say(peer.id, PreVoted(term=desk.term, round=question.round, granted=granted))

    def on_prevoted(self, peer: Peer, reply: PreVoted) -> None:
        desk = self._desk
        if desk.follow(peer, reply.term) or desk.leads:
            return
        granted = self._prevotes.count(peer.id, reply, desk.term)
        if granted and desk.peers.quorum(granted):
            self.campaign()

    def on_request_vote(self, peer: Peer, request: RequestVote) -> None:
        self._desk.deliver(peer, dialect.vote_wanted(request))

    def on_vote(self, peer: Peer, vote: Vote) -> None:
        """The library counts every vote it hears, of anyone, any number of times."""
        key = (peer.id, vote.term)
        if peer.id in self._desk.peers.voters() and key not in self._counted:
            self._counted.add(key)
            self._desk.deliver(peer, dialect.vote_given(vote))

    def on_timeout_now(self, peer: Peer, order: TimeoutNow) -> None:
        if self._desk.leader == peer and self._desk.votes:
            self._desk.peers.join_voters()
            self._desk.deliver(peer, dialect.campaign_now(order.term))

    def on_term_hint(self, peer: Peer, hint: TermHint) -> None:
        self._desk.follow(peer, hint.term)
