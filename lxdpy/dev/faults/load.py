"""Clients that read, write and swap registers, and clients that add to ledgers, through all members at once.

Registers and ledgers are profiles; their value is the description. Each is used for a while and followed by
a fresh one, so that what is kept, sent and checked stays small.
"""

import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

import msgspec

from lxdpy.dev.faults.client import Answer, Client, Notes
from lxdpy.dev.history import Call, Kind

REGISTERS = 3  # in use at a time; few, so that calls meet
LEDGERS = 2
USES = 150  # of one of them
PAUSE = 0.02  # seconds at most between two calls of a client
CLIENTS = 6  # threads; every third adds to ledgers


class Book(msgspec.Struct):
    """One profile in use."""

    name: str
    index: int  # as of which it is there
    uses: int = 0


class Shelf:
    """Books of one kind that all clients use; who finds one used up puts another in its place."""

    def __init__(self, kind: str, size: int) -> None:
        self.kind = kind
        self.all: list[Book] = []
        self._places: list[Book | None] = [None] * size
        self._lock = threading.Lock()

    def fill(self, client: Client) -> None:
        for place in range(len(self._places)):
            while self._places[place] is None:
                self._renew(client, place)

    def take(self, client: Client) -> Book | None:
        """Any book, for one use. None if a fresh one was needed and could not be had."""
        place = client.dice.randrange(len(self._places))
        book = self._places[place]
        if book is None or book.uses >= USES:
            return self._renew(client, place)
        book.uses += 1
        return book

    def _renew(self, client: Client, place: int) -> Book | None:
        with self._lock:
            before = self._places[place]
            if before is not None and before.uses < USES:
                return before  # somebody else was first
            name = f"{self.kind}{len(self.all)}"
            index = client.create(name)
            if index is None:
                return None
            book = Book(name, index)
            self.all.append(book)
            self._places[place] = book
            return book


class Entries(msgspec.Struct):
    """What became of what clients tried to add to ledgers: token → outcome."""

    outcomes: dict[str, str] = {}
    stale: list[str] = []  # reads that were older than the index they asked for


class Load:
    """`start`, trouble, `stop`; then `calls` and `entries` say what the clients were told."""

    def __init__(self, sockets: Mapping[str, Path], seed: str) -> None:
        self.notes = Notes()
        self.calls: list[Call] = []
        self.entries: dict[str, Entries] = {}  # by ledger
        self.registers = Shelf("register", REGISTERS)
        self.ledgers = Shelf("ledger", LEDGERS)
        self.began = time.monotonic()
        self._clients = [Client(sockets, self.notes, f"{seed}-{number}") for number in range(CLIENTS)]
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def start(self) -> None:
        """Raises nothing: what breaks a client is raised by `stop`."""
        self.registers.fill(self._clients[0])
        self.ledgers.fill(self._clients[0])
        for number, client in enumerate(self._clients):
            user = Bookkeeper(self, client) if number % 3 == 0 else Swapper(self, client)
            thread = threading.Thread(target=self._use, args=(client, user.step), name=f"client {number}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _use(self, client: Client, step: Callable[[], None]) -> None:
        try:
            while not self._ending.is_set():
                step()
                time.sleep(client.dice.uniform(0, PAUSE))
        except BaseException as failure:
            self._failures.append(failure)
            raise


class Swapper:
    """Uses registers."""

    def __init__(self, load: Load, client: Client) -> None:
        self.load, self.client = load, client
        self._seen: dict[str, Answer] = {}
        self._number = 0

    def step(self) -> None:
        book = self.load.registers.take(self.client)
        if book is None:
            return
        seen = self._seen.get(book.name)
        kinds: list[Kind] = (
            ["read", "read", "write"] if seen is None else ["read", "read", "write", "swap", "swap"]
        )
        kind = self.client.dice.choice(kinds)
        if kind == "read":
            self.read(book)
            return
        self._number += 1
        value = f"{threading.current_thread().name[7:]}.{self._number}"
        expected = seen if kind == "swap" else None
        self.put(book, kind, value, expected)

    def read(self, book: Book) -> None:
        began = time.monotonic()
        answer = self.client.read(book.name, book.index, linearizable=True)
        if answer is not None and answer.outcome == "applied":
            self._seen[book.name] = answer
            self.load.calls.append(
                Call(book.name, "read", answer.value, began, time.monotonic(), member=self.client.member)
            )

    def put(self, book: Book, kind: Kind, value: str, expected: Answer | None) -> None:
        began = time.monotonic()
        answer = self.client.put(book.name, value, book.index, expected.etag if expected else "")
        if answer is None:
            return
        ended = inf if answer.outcome == "unknown" else time.monotonic()
        before = expected.value if expected else ""
        self.load.calls.append(
            Call(book.name, kind, value, began, ended, answer.outcome, before, self.client.member)
        )


class Bookkeeper:
    """Adds to ledgers: reads what is there, and puts it back with one token more unless it has changed."""

    def __init__(self, load: Load, client: Client) -> None:
        self.load, self.client = load, client
        self._own: dict[str, tuple[int, list[str]]] = {}  # ledger → index and tokens that were acknowledged
        self._number = 0

    def step(self) -> None:
        book = self.load.ledgers.take(self.client)
        if book is None:
            return
        entries = self.load.entries.setdefault(book.name, Entries())
        index, own = self._own.setdefault(book.name, (book.index, []))
        there = self.client.read(book.name, index)
        if there is None or there.outcome != "applied":
            return
        tokens = there.value.split()
        if missing := set(own) - set(tokens):
            entries.stale.append(f"{book.name} at {self.client.member}, index {index}: without {missing}")
        self._number += 1
        token = f"{threading.current_thread().name[7:]}.{self._number}"
        answer = self.client.put(book.name, " ".join([*tokens, token]), book.index, there.etag)
        if answer is None:
            return
        entries.outcomes[token] = answer.outcome
        if answer.outcome == "applied":
            self._own[book.name] = (answer.index, [*own, token])
