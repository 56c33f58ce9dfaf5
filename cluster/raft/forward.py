"""Proposals and reads of any member, brought to the leader and back. On the Raft thread.

The library could forward commands, but loses the answers of some and mistakes those of others: its request
numbers begin again with each start. Nothing is tried twice here; whoever asked knows how long it wants to
try, and under which request id.
"""

import itertools
import secrets
from collections.abc import Callable
from functools import partial

from cluster.raft.batches import NOT_TAKEN, UNKNOWN, OnReply, Reply
from cluster.raft.desk import Send
from cluster.raft.messages import Answer, Forward, Message, ReadRequest
from cluster.raft.node import Node


class Forwarder:
    def __init__(self, node: Node, send: Send) -> None:
        self._node = node
        self._send = send
        self._numbers = itertools.count(secrets.randbits(60))  # no answer to an earlier process can match
        self._waiting: dict[int, tuple[str, OnReply]] = {}

    def propose(self, entry: bytes, reply: OnReply) -> None:
        if self._node.is_leader:
            self._node.propose(entry, reply)
        else:
            self._ask(lambda number: Forward(number=number, entry=entry), reply)

    def read(self, reply: OnReply) -> None:
        """Answered with the index to wait for."""
        if self._node.is_leader:
            self._node.read_index(lambda index: reply(Reply(index=index)))
        else:
            self._ask(lambda number: ReadRequest(number=number), reply)

    def _ask(self, message: Callable[[int], Message], reply: OnReply) -> None:
        leader = self._node.leader
        if leader is None or leader not in self._node.guard.peers.links:
            reply(NOT_TAKEN)
            return
        number = next(self._numbers)
        self._waiting[number] = (leader, reply)
        self._send(leader, message(number))

    def receive(self, member: str, message: Message) -> bool:
        """False: it is not for the forwarder."""
        if isinstance(message, Forward):
            self._node.propose(message.entry, partial(self._answer, member, message.number))
        elif isinstance(message, ReadRequest):
            number = message.number
            self._node.read_index(lambda index: self._answer(member, number, Reply(index=index)))
        elif isinstance(message, Answer):
            self._answered(member, message)
        else:
            return False
        return True

    def _answer(self, member: str, number: int, reply: Reply) -> None:
        answer = Answer(number=number, index=reply.index, error=reply.error, taken=reply.taken)
        self._send(member, answer)

    def _answered(self, member: str, answer: Answer) -> None:
        asked, reply = self._waiting.get(answer.number, (None, None))
        if asked == member and reply is not None:
            del self._waiting[answer.number]
            reply(Reply(answer.index, answer.error, answer.taken))

    def give_up(self, *, unless: str | None) -> None:
        """Whoever is asked has no link any more, or does not lead: nobody knows what became of it."""
        lost = [number for number, (leader, _) in self._waiting.items() if leader != unless]
        for number in lost:
            _, reply = self._waiting.pop(number)
            reply(UNKNOWN)
