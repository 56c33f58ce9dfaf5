"""Each repair of the Raft library, and how to take it out: for tests of the tests.

A mutation replaces one piece of source text by another. The tests that stand beside it must then fail.
"""

from typing import NamedTuple

from integration.mutants import Changed

RAFT = "cluster/raft/"
TESTS = "tests/cluster/raft/"

Edit = tuple[str, str, str]  # file below cluster/raft (from the top if there is a slash in it), old, new


class Mutation(NamedTuple):
    name: str  # what is wrong with the mutant
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # below tests/cluster/raft; one that fails is enough
    also: tuple[Edit, ...] = ()  # where a repair is made twice

    @property
    def changes(self) -> list[Changed]:
        edits = ((self.file, self.old, self.new), *self.also)
        return [Changed(file if "/" in file else RAFT + file, old, new) for file, old, new in edits]


MUTATIONS = (
    # Disk
    Mutation(
        "acknowledges before the disk has it", "desk.py",
        "            self.journal.sync()\n", "            pass\n",
        ("test_protocol.py::test_an_entry_is_acknowledged_only_after_it_is_on_disk",),
    ),
    Mutation(
        "does not sync what it appends", "frames.py",
        "        os.fdatasync(self._fd)\n", "",
        ("test_frames.py::test_every_append_is_synced",),
    ),
    Mutation(
        "votes before the vote is durable", "journal.py",
        "msgspec.msgpack.encode((term, vote))))\n        self.sync()\n",
        "msgspec.msgpack.encode((term, vote))))\n",
        ("test_journal.py::test_term_and_vote_are_durable_at_once",),
    ),
    Mutation(
        "forgets its vote in a crash", "journal.py",
        "                self._term, self._vote = msgspec.msgpack.decode(data)",
        "                self._term, _ = msgspec.msgpack.decode(data)",
        ("test_protocol.py::test_a_vote_survives_a_crash_right_after_it",),
    ),
    Mutation(
        "rewrites its log in place", "frames.py",
        '        return FrameFile(self.path.with_suffix(".new"), self._number)',
        "        return FrameFile(self.path, self._number)",
        ("test_frames.py::test_a_crash_while_the_file_is_replaced_leaves_the_old_one",),
    ),
    Mutation(
        "forgets what it appended while it compacted its log", "frames.py",
        "            self._rewriting.late.append(payload)", "            pass",
        ("test_journal.py::test_what_is_added_while_the_log_is_compacted_is_in_it",),
    ),
    Mutation(
        "goes on with a compacted log that is not whole", "frames.py",
        "            if rewriting.failure is not None:", "            if rewriting.failure == 0:",
        ("test_journal.py::test_a_log_that_cannot_be_compacted_stays_as_it_is",),
    ),
    Mutation(
        "believes a frame without its checksum", "frames.py",
        "    if zlib.crc32(payload, zlib.crc32(content[offset : offset + HEAD.size])) != checksum:",
        "    if checksum is None:",
        ("test_frames.py::test_no_flipped_byte_is_believed",),
    ),
    Mutation(
        "takes damage in the middle for a torn end", "frames.py",
        "        self._refuse_good_frame_after(content, offset)\n", "",
        ("test_frames.py::test_no_flipped_byte_is_believed",),
    ),
    Mutation(
        "writes before there is room", "frames.py",
        "            os.posix_fallocate(self._fd, self._allocated, grown - self._allocated)\n", "",
        ("test_frames.py::test_space_is_allocated_before_it_is_written",),
    ),
    Mutation(
        "goes on after a failed sync", "desk.py",
        '            self.fatal(f"journal: {error!r}")\n            return False',
        "            log.error(error)",
        ("test_protocol.py::test_a_disk_error_ends_the_member_before_it_promises_anything",),
    ),
    Mutation(
        "commits what is appended after a restart", "journal.py",
        "            self._commit = min(self._commit, self.last)", "            pass",
        ("test_journal.py::test_the_commit_index_never_points_behind_the_last_entry",),
    ),
    Mutation(
        "starts without its log", "node.py",
        "        if not fresh:\n            raise Damaged(",
        "        if not folder:\n            raise Damaged(",
        ("test_node.py::test_a_member_that_lost_its_log_does_not_start",),
    ),
    Mutation(
        "takes the log of another", "journal.py",
        "        if (meta.cluster, meta.member) != (self.identity.cluster_id, self.identity.member_id):",
        "        if not meta.member:",
        ("test_journal.py::test_a_log_of_another_member_or_cluster_is_refused",),
    ),
    # Snapshots
    Mutation(
        "clears the log that goes on after the snapshot", "journal.py",
        "        if self._entries and self.term_at(index) == term and self.term_at(index - 1) is not None:",
        "        if not voters:",
        ("test_protocol.py::test_entries_behind_a_snapshot_survive_a_crash_before_the_log_was_compacted",),
    ),
    Mutation(
        "replaces a newer snapshot by an older one", "compaction.py",
        "        if index <= self.index:", "        if index < 0:",
        ("test_protocol.py::test_a_snapshot_finished_late_does_not_replace_a_newer_one",),
    ),
    Mutation(
        "commits from a snapshot on its way", "following.py",
        "            desk.deliver(peer, dialect.piece_in(install))",
        '            desk.deliver(peer, {**dialect.piece_in(install), "commit_index": desk.journal.last})',
        ("test_protocol.py::test_nothing_is_committed_from_a_snapshot_before_it_is_complete",),
    ),
    Mutation(
        "clears a log that has what the snapshot has", "following.py",
        "            self._skip_snapshot = index <= desk.committed or desk.journal.term_at(index) == term",
        "            self._skip_snapshot = index < 0 and term < 0",
        (
            "test_protocol.py::test_a_snapshot_that_is_already_in_the_log_does_not_clear_it",
            "test_protocol.py::test_a_snapshot_of_entries_that_are_here_but_not_known_to_be_committed_clears_nothing",
        ),
    ),
    Mutation(
        "loads a snapshot without checking it", "snapshot.py",
        "        if offset > len(content) or checksum != expected:", "        if offset > len(content):",
        ("test_snapshot.py::test_no_cut_and_no_flipped_byte_is_believed",),
    ),
    Mutation(
        "acknowledges a snapshot that it could not load", "compaction.py",
        '            self._on_fatal(f"snapshot: {error}")\n            raise', "            raise",
        ("test_protocol.py::test_a_snapshot_that_cannot_be_loaded_ends_the_member_without_an_answer",),
    ),
    Mutation(
        "does not sync a received snapshot", "snapshot.py",
        '    with received.open("rb") as file:\n        os.fsync(file.fileno())\n', "",
        ("test_snapshot.py::test_a_received_snapshot_is_synced_before_it_counts",),
    ),
    Mutation(
        "floods a member while a snapshot is being made", "leading.py",
        "                desk.peers.stall(member)\n", "                pass\n",
        ("test_protocol.py::test_one_message_is_sent_while_a_snapshot_is_being_made",),
    ),
    # Logs
    Mutation(
        "cuts its log at every message", "following.py",
        "        verdict = appends.judge(append, desk.journal, desk.committed)",
        "        verdict: appends.Verdict = appends.Take(append)",
        ("test_protocol.py::test_a_repeated_message_takes_no_acknowledged_entry_away",),
    ),
    Mutation(
        "lets a leader contradict what is committed", "appends.py",
        "    if position < log.last and position < committed:", "    if position < 0:",
        ("test_appends.py::test_a_conflict_with_a_committed_entry_is_impossible",),
    ),
    Mutation(
        "goes back at a late reset", "leading.py",
        "        elif answer.next_index > self.match.get(peer.id, 0):",
        "        elif answer.next_index >= 0:",
        ("test_protocol.py::test_a_late_reset_does_not_move_the_leader_back",),
    ),
    Mutation(
        "sends again what is on its way", "leading.py",
        "        if sent > next_index:", "        if sent < 0:",
        ("test_protocol.py::test_entries_on_their_way_are_not_sent_again_at_each_acknowledgement",),
    ),
    Mutation(
        "counts acknowledgements of an older term", "leading.py",
        "        if not desk.leads or answer.term != desk.term:", "        if not desk.leads:",
        ("test_protocol.py::test_acknowledgements_of_an_older_term_count_for_nothing",),
    ),
    Mutation(
        "looks for the conflict entry by entry", "following.py",
        "            wanted = appends.jump_back(wanted, desk.journal, desk.committed)",
        "            pass",
        ("test_protocol.py::test_the_place_where_two_logs_part_is_found_in_few_round_trips",),
    ),
    # Elections and reads
    Mutation(
        "counts a vote twice", "elections.py",
        "            self._counted.add(key)\n", "",
        ("test_elections.py::test_a_vote_counts_once_and_only_of_a_voter",),
    ),
    Mutation(
        "grants pre-votes while a leader lives", "elections.py",
        "        granted = self._prevotes.quiet and not leads and", "        granted =",
        ("test_elections.py::test_nobody_grants_a_pre_vote_while_a_leader_lives",),
    ),
    Mutation(
        "grants pre-votes to shorter logs", "elections.py",
        " and theirs >= mine", "",
        ("test_elections.py::test_nobody_grants_a_pre_vote_to_a_shorter_log",),
    ),
    Mutation(
        "campaigns without asking first", "elections.py",
        "        if desk.peers.quorum(()):\n            self.campaign()", "        self.campaign()",
        ("test_elections.py::test_a_member_that_hears_only_followers_raises_no_term",),
    ),
    Mutation(
        "campaigns without a vote of its own", "elections.py",
        "desk.leads or not desk.votes or not", "desk.leads or not",
        ("test_elections.py::test_a_learner_does_not_campaign_even_when_it_would_win",),
    ),
    Mutation(
        "leads for half a minute without a majority", "core.py",
        "leaderFallbackTimeout=1.5", "leaderFallbackTimeout=30",
        ("test_elections.py::test_a_leader_that_is_cut_off_steps_down_within_two_seconds",),
    ),
    Mutation(
        "does not tell an old leader of the new term", "following.py",
        "            desk.say(peer.id, TermHint(term=desk.term))\n", "",
        ("test_elections.py::test_an_old_leader_is_told_of_the_new_term",),
    ),
    Mutation(
        "bears a second leader in its term", "following.py",
        "        if desk.leads and term == desk.term:", "        if desk.leads and term < 0:",
        ("test_elections.py::test_a_second_leader_in_one_term_ends_the_member",),
    ),
    Mutation(
        "answers reads without a majority", "reads.py",
        "                desk.say(member, ping)\n            self._rounds.finish(desk.peers.quorum)",
        "                desk.say(member, ping)\n            self._rounds.finish(lambda _: True)",
        ("test_elections.py::test_a_leader_without_a_majority_answers_no_read",),
    ),
    Mutation(
        "takes an old pong for a new one", "reads.py",
        "(self._round.number, self._round.term) == (number, term)", "self._round.term == term",
        ("test_elections.py::test_a_pong_of_an_earlier_round_confirms_nothing",),
    ),
    Mutation(
        "answers reads before it knows what is committed", "reads.py",
        " or desk.journal.term_at(desk.committed) != desk.term:", ":",
        ("test_elections.py::test_a_new_leader_answers_reads_only_after_an_entry_of_its_own_term",),
    ),
    # Membership
    Mutation(
        "changes voters two at a time", "node.py",
        "        if self.journal.last_change > self.committed or member == self.me:",
        "        if member == self.me:",
        ("test_membership_changes.py::test_a_second_change_waits_for_the_first",),
    ),
    Mutation(
        "makes a voter of a member without the log", "node.py",
        "        return match is not None and match >= self.committed - CAUGHT_UP", "        return True",
        ("test_membership_changes.py::test_nobody_votes_before_it_has_the_log_and_a_link",),
    ),
    Mutation(
        "takes its voters from the list it is started with", "journal.py",
        "        for index, verb, member in self._changes:\n            if upto",
        "        for index, verb, member in ():\n            if upto",
        ("test_journal.py::test_voters_follow_the_entries_not_the_list_it_was_opened_with",),
    ),
    Mutation(
        "brings removed voters back", "node.py",
        "        self._core.follow(self.journal.voters())\n        self.desk", "        self.desk",
        ("test_membership_changes.py::test_applying_an_old_change_does_not_bring_a_removed_voter_back",),
    ),
    Mutation(
        "takes promoted learners for learners", "connections.py",
        "            self._attached.discard(member)\n            self._ghosts.add(member)\n        if self.",
        "            pass\n        if self.",
        ("test_membership_changes.py::test_a_learner_is_promoted_in_place_and_demoted_again",),
    ),
    Mutation(
        "hands over with proposals in flight", "node.py",
        "        if self.batches.flying or self.journal.last > self.committed:", "        if not self.me:",
        ("test_membership_changes.py::test_leadership_is_not_handed_over_while_proposals_await_their_answer",),
    ),
    # Proposals
    Mutation(
        "applies an entry again that it cannot read", "node.py",
        '            self.desk.fatal(f"entry {index}: {error}")\n', "",
        ("test_node.py::test_an_entry_that_cannot_be_read_ends_the_member_once",),
    ),
    Mutation(
        "leaves proposals unanswered when it steps down", "node.py",
        "            self.batches.give_up()", "            pass",
        ("test_node.py::test_a_leader_that_steps_down_does_not_know_what_becomes_of_its_entries",),
    ),
    Mutation(
        "says of entries in its log that they are surely not applied", "batches.py",
        "                reply(UNKNOWN)", "                reply(NOT_TAKEN)",
        ("test_node.py::test_a_leader_that_steps_down_does_not_know_what_becomes_of_its_entries",),
    ),
    Mutation(
        "says when it stops that what it asked for is surely not applied", "asking.py",
        "    while not (uncertain and session.closed):", "    while True:",
        ("test_asking.py::test_a_refusal_does_not_make_an_unknown_outcome_sure",),
    ),
    Mutation(
        "forgets that an earlier try may be applied", "asking.py",
        "        uncertain = uncertain or reply.taken", "        uncertain = reply.taken",
        ("test_asking.py::test_a_refusal_does_not_make_an_unknown_outcome_sure",),
    ),
    Mutation(
        "says of a lost leader that it has done nothing", "forward.py",
        "            reply(UNKNOWN)", "            reply(NOT_TAKEN)",
        ("test_forward.py::test_when_the_leader_is_lost_the_outcome_is_unknown",),
    ),
    Mutation(
        "takes an answer to an earlier process for its own", "forward.py",
        "itertools.count(secrets.randbits(60))", "itertools.count(secrets.randbits(0))",
        ("test_forward.py::test_an_answer_to_an_earlier_process_matches_nothing",),
    ),
    Mutation(
        "does a repeated request again", "cluster/state/machine.py",
        "        if proposal.request_id in self._done:", "        if not proposal.request_id:",
        ("test_node.py::test_a_repeated_request_is_done_once",),
    ),
    Mutation(
        "lets entries outgrow a message", "batches.py",
        "            if size > MAX_BYTES:\n                break\n", "",
        ("test_node.py::test_a_batch_is_never_larger_than_a_message_may_be",),
    ),
    # Wire
    Mutation(
        "unpickles", "codec.py",
        "    pysyncobj.syncobj.pickle = SimpleNamespace(dumps=dumps, loads=loads, to_bytes=_to_bytes)\n", "",
        ("test_membership_changes.py::test_nothing_is_pickled",),
    ),
    Mutation(
        "leaks pipes", "codec.py",
        "    pysyncobj.syncobj.PIPE_NOTIFIER_ENABLED = False\n", "",
        ("test_node.py::test_no_descriptors_are_left_behind",),
    ),
    Mutation(
        "lets in members of another cluster", "link.py",
        "        if not isinstance(message, Hello) or message.cluster != board.cluster_id:",
        "        if not isinstance(message, Hello):",
        ("test_link.py::test_a_wrong_greeting_closes_the_connection",),
    ),
    Mutation(
        "lets in who means another member", "link.py",
        "        elif message.to != board.me:", "        elif not message.to:",
        ("test_link.py::test_a_wrong_greeting_closes_the_connection",),
    ),
    Mutation(
        "lets in who says that it is another member", "link.py",
        "        elif member != message.me:", "        elif False:",
        ("test_link.py::test_who_it_is_the_certificate_says",),
    ),
    Mutation(
        "speaks to whoever answers", "link.py",
        "        if self._board.member_of(transport) != self.member:", "        if not self.member:",
        ("test_link.py::test_no_link_to_another_member_than_was_dialled_even_if_tls_trusts_it",),
    ),
    Mutation(
        "waits for a frame however long", "link.py",
        "            if length > self.limit:", "            if length < 0:",
        ("test_link.py::test_a_frame_longer_than_the_limit_is_not_waited_for",),
    ),
    Mutation(
        "believes answers of whom it did not ask", "forward.py",
        "        if asked == member and reply is not None:", "        if reply is not None:",
        ("test_forward.py::test_an_answer_counts_only_from_whom_was_asked",),
    ),
)  # fmt: skip
