"""A stopped member: what it has, and what can be made of it when the others are lost for good.

A take-over makes it a cluster of its own: the only voter of a cluster with a new id, so that members of the
old one, should they return, are refused at the greeting and by their own logs. Take the member with the
highest (last term, last entry). A take-over that was interrupted is finished by calling it again with the
same new id; until then no member starts from the folder, because a marker lies in it.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cluster.errors import Conflict
from cluster.raft import batches, snapshot
from cluster.raft.codec import NO_OP, argument
from cluster.raft.frames import Damaged, sync_folder, write_synced
from cluster.raft.journal import TAKE_OVER, Identity, Journal, identity_of, without_vote
from cluster.raft.snapshot import Header
from cluster.state.machine import CannotApply, Machine
from cluster.state.txn import State


class Findings(msgspec.Struct, frozen=True):
    """What a stopped member has."""

    identity: Identity
    term: int
    last_term: int  # of the last entry: compare this between members, then `last`
    last: int
    committed: int  # at least
    snapshot: int  # its last entry; 0: there is none
    voters: list[str]
    begun: Identity | None = None  # whom an interrupted take-over makes of it

    @property
    def newness(self) -> tuple[int, int]:
        """The higher, the more of what was acknowledged is there."""
        return self.last_term, self.last


def inspect(folder: Path) -> Findings:
    """Writes nothing. Raises Damaged, OSError."""
    journal = _look(folder)
    header = _header(folder)
    last, last_term = (header.last[1], header.last[2]) if header else (0, 0)
    if len(journal):
        last, last_term = max((last, last_term), (journal.last, journal.last_term))
    return Findings(
        identity=journal.identity,
        term=max(journal.getCurrentTerm(), last_term),
        last_term=last_term,
        last=last,
        committed=max(journal.getRaftCommitIndex(), header.last[1] if header else 0),
        snapshot=header.last[1] if header else 0,
        voters=sorted(journal.voters() if len(journal) or not header else header.voters),
        begun=_begun(folder),
    )


def replay(folder: Path, machine: Machine) -> State:
    """The state that the member would have if all its entries were committed. Writes nothing.

    Raises Damaged, OSError.
    """
    journal = _look(folder)
    covered = 0
    try:
        if (folder / "snapshot").exists():
            header, chunks = snapshot.read(folder / "snapshot")
            covered = header.last[1]
            machine.load(chunks)
        for command, index, _ in journal[:]:
            blob = argument(command) if index > covered else None
            for proposal in batches.unpack(blob) if blob is not None else ():
                machine.apply(index, proposal)
    except (CannotApply, msgspec.MsgspecError) as error:
        raise Damaged(f"{folder}: {error}") from error
    return machine.state


def take_over(folder: Path, cluster_id: str, settle: Callable[[], None] = lambda: None) -> Findings:
    """Make this member the only voter of the new cluster `cluster_id`; returns what it has now.

    Entries that were not committed become so: nobody is left to ask. `settle` is called when the log is
    done, and again when that is repeated after a crash. Raises Damaged, OSError; Conflict if another
    take-over was begun here.
    """
    old = identity_of(folder / "journal")
    new = Identity(cluster_id, old.member_id)
    with _marked(folder, new):
        header = _header(folder)
        if header is not None:
            _, chunks = snapshot.read(folder / "snapshot")
            alone = Header(without_vote(header.last), without_vote(header.previous), [new.member_id])
            snapshot.write(folder / "snapshot.new", alone, chunks)
            snapshot.publish(folder / "snapshot.new", folder / "snapshot")
        if old != new:
            journal = Journal(folder / "journal", old)
            journal.become_alone(new)
            journal.close()
        settle()
    return inspect(folder)


def found(
    folder: Path, identity: Identity, chunks: Iterable[bytes], at: tuple[int, int], settle: Callable[[], None]
) -> None:
    """Put a dumped state in place of what is in the folder, as that of a cluster whose only voter is this
    member. `at` is index and term of its last entry. `settle` is called before the old log goes. To be
    repeated after a crash. Raises OSError.
    """
    index, term = at
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    header = Header((NO_OP, index, term), (NO_OP, index - 1, term), [identity.member_id])
    snapshot.write(fresh / "snapshot", header, chunks)
    journal = Journal(fresh / "journal", identity, [identity.member_id])
    journal.setCurrentTerm(term, None)
    journal.close()
    settle()
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    sync_folder(folder.parent)


@contextmanager
def _marked(folder: Path, new: Identity) -> Iterator[None]:
    """While inside, and after a crash in it, no member starts from the folder."""
    begun = _begun(folder)
    if begun not in (None, new):
        raise Conflict(f"A take-over as cluster {begun.cluster_id} was begun here: finish that one")
    write_synced(folder / TAKE_OVER, msgspec.msgpack.encode(new))
    yield
    (folder / TAKE_OVER).unlink()
    sync_folder(folder)


def _begun(folder: Path) -> Identity | None:
    path = folder / TAKE_OVER
    return msgspec.msgpack.decode(path.read_bytes(), type=Identity) if path.exists() else None


def _look(folder: Path) -> Journal:
    path = folder / "journal"
    return Journal(path, identity_of(path), look_only=True)


def _header(folder: Path) -> Header | None:
    path = folder / "snapshot"
    return snapshot.read(path)[0] if path.exists() else None
