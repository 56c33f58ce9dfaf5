"""The library itself, with the only options it is safe with."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from cluster.raft.codec import Peer

if TYPE_CHECKING:
    from cluster.raft.guard import Guard

FOLLOWER, CANDIDATE, LEADER = range(3)

MAX_MESSAGE = 1 << 20  # bytes of log entries in one message, and more than any entry may have
SNAPSHOT_PIECE = 1 << 18  # bytes of a snapshot in one message
HEARTBEAT = 0.2  # seconds; entries and commits do not wait for it
NEVER = 1 << 60

# The proposal failed before it was in any log; all other failures leave the outcome unknown.
SURELY_NOT = frozenset({FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.REQUEST_DENIED})

Done = Callable[[Any, int], None]  # result, FAIL_REASON


def options(**hooks: Any) -> SyncObjConf:
    """Its election timeouts are shorter than the pre-vote's, which is the one that counts. Compaction, file
    names and callbacks are in `hooks`."""
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        commandsWaitLeader=False,
        dynamicMembershipChange=True,
        raftMinTimeout=0.6,
        raftMaxTimeout=0.7,
        appendEntriesPeriod=HEARTBEAT * 0.9,  # or every other pass would come a moment too early for it
        leaderFallbackTimeout=1.5,
        connectionTimeout=3.5,
        appendEntriesBatchSizeBytes=MAX_MESSAGE,
        logCompactionBatchSize=SNAPSHOT_PIECE,
        commandsQueueSize=1000,
        logCompactionMinEntries=NEVER,
        logCompactionMinTime=NEVER,
        useFork=False,
        **hooks,
    )


class Core(SyncObj):  # type: ignore[misc]  # the library has no types
    """One replicated method. All calls from one thread."""

    def __init__(
        self,
        me: str,
        others: Iterable[str],
        conf: SyncObjConf,
        transport: "Guard",
        apply: Callable[[bytes], object],
    ) -> None:
        self._apply_entry = apply
        peers = [Peer(other) for other in others]
        super().__init__(Peer(me), peers, conf, nodeClass=Peer, transport=transport)
        self._poller = _NothingToPoll()

    @replicated  # type: ignore[untyped-decorator]
    def entry(self, blob: bytes) -> object:
        """Called without `_doApply`: put into the log. Called by the library: apply."""
        return self._apply_entry(blob)

    def follow(self, voters: Iterable[str]) -> None:
        """Correct the voters to those of the log.

        The library changes them when an entry is appended, rightly, and again when it is applied, which
        brings back a member that was added by the entry and removed by a later one.
        """
        wanted = set(voters) - {self.selfNode.id}
        present = {node.id for node in self.otherNodes}
        for member in wanted - present:
            self._SyncObj__doChangeCluster(("add", member, Peer(member)))
        for member in present - wanted:
            self._SyncObj__doChangeCluster(("rem", member, Peer(member)))


class _NothingToPoll:
    """The library polls at each pass, though no descriptor is its own; that gives the GIL away."""

    def poll(self, seconds: float) -> None:
        pass


def snapshot_hooks(path: Path, serializer: Any, deserializer: Any, checker: Any) -> dict[str, Any]:
    return {
        "fullDumpFile": str(path),
        "serializer": serializer,
        "deserializer": deserializer,
        "serializeChecker": checker,
    }
