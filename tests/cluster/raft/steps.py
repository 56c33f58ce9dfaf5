"""What tests do with simulated members, one step at a time."""

from cluster.raft.messages import Append, Message
from cluster.raft.node import Node
from tests.cluster.raft.simulator import Simulator


def alone(simulator: Simulator, *keys: str) -> Node:
    node = simulator.start("a", "a")
    simulator.leader()
    simulator.write("a", *keys)
    return node


def followers(simulator: Simulator) -> list[str]:
    leader = simulator.leader()
    return [name for name in simulator.members if name != leader]


def receive(simulator: Simulator, name: str, sender: str, message: Message) -> list[Message]:
    """Deliver, make one pass, and take what goes back to the sender."""
    member = simulator.members[name]
    member.outbox.clear()
    member.node.receive(sender, message)
    member.node.step()
    answers = [sent for to, sent in member.outbox if to == sender]
    member.outbox.clear()
    return answers


def append(simulator: Simulator, name: str, *commands: bytes, term: int = 0) -> Append:
    """The entries after the last one of `name`."""
    node = simulator[name]
    term = term or node.term
    last = node.journal.last
    entries = [(command, last + offset, term) for offset, command in enumerate(commands, 1)]
    return Append(term, 0, last, node.journal.last_term, entries)
