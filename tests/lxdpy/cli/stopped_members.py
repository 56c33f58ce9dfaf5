"""State directories of stopped members, as daemons would have left them."""

from collections.abc import Callable
from pathlib import Path

from cluster.membership import identity as identities
from cluster.membership.commands import CreateToken, EnableCluster, FoundCluster, JoinMember, ReadyMember
from cluster.membership.identity import Identity, Peer
from cluster.membership.model import Cluster, Member, Token, members
from cluster.membership.tokens import hash_of
from cluster.raft.codec import dumps
from cluster.raft.journal import Identity as Owner
from cluster.raft.journal import Journal
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.tables import new_machine

CLUSTER = "c" * 32
IDS = {"n1": "111111111111", "n2": "222222222222", "n3": "333333333333"}


def address(name: str) -> str:
    """Of this host: no packet is to leave it. Nobody listens there."""
    return f"127.0.7.{name[1:]}:9"


def commands(names: list[str]) -> list[Command]:
    """What makes a cluster of these."""
    first, *others = names
    made: list[Command] = [
        FoundCluster(Cluster(CLUSTER), Member(IDS[first], "none", certificate="pem", fingerprint=first)),
        CreateDefaults(),
        EnableCluster(IDS[first], first, address(first), "cluster pem\nof two lines\n", "key"),
    ]
    for name in others:
        row = Member(IDS[name], name, address=address(name), fingerprint=name)
        made += [
            CreateToken(Token(name, "member", name, hash_of(name), 0.0)),
            JoinMember(hash_of(name), row),
            ReadyMember(IDS[name]),
        ]
    return made


def entry(number: int, command: Command) -> bytes:
    """In the library's form, as it is in the log."""
    proposal = entry_of(command, request_id=f"r{number}", proposer=IDS["n1"], proposed_at=100.0)
    return b"\0" + dumps((0, (dumps([proposal]),)))


def left_behind(
    root: Path, name: str, log: list[Command], *, term: int = 3, committed: int | None = None
) -> Path:
    """A member's directory, whose log has a no-op and these commands."""
    folder = root / "cluster" / "raft"
    folder.mkdir(parents=True)
    journal = Journal(folder / "journal", Owner(CLUSTER, IDS[name]), sorted(IDS.values()))
    journal.setCurrentTerm(term, None)
    journal.add(b"\1", 1, 1)
    for index, command in enumerate(log, 2):
        journal.add(entry(index, command), index, 2)
    journal.setRaftCommitIndex(committed if committed is not None else len(log) + 1)
    journal.close()
    state = applied(log).state
    identities.save(
        root,
        Identity(
            cluster_id=CLUSTER,
            member_id=IDS[name],
            founder=name == "n1",
            listen=address(name),
            cluster_listen=address(name),
            peers={row.id: Peer(row.address, row.certificate) for row in members(state)},
        ),
    )
    return root


def applied(log: list[Command], machine: Callable[[], Machine] = new_machine) -> Machine:
    made = machine()
    for index, command in enumerate(log, 2):
        made.apply(index, entry_of(command, request_id=f"r{index}", proposer="m", proposed_at=100.0))
    return made
