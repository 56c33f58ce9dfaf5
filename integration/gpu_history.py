"""Clients that take GPUs and give them back through all members at once, and what each was told, by device.

Each device is a register, its value who holds it. A take is the create of an instance that names the device
and keeps it, a release the delete of that instance; names are used once. See `lxdpy.dev.history`.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from math import inf
from typing import Any

from lxdpy.dev.api import Connection
from lxdpy.dev.history import Call, Outcome
from lxdpy.dev.members import Member

FREE = "free"
PATIENCE = (2.0, 10.0)  # seconds for one answer
WAIT = 8  # seconds in the queue
PAUSE = 0.1  # seconds between two calls of a client
TOO_LATE = "No GPUs came free in time"  # it was told to wait no longer, and had nothing


class Users:
    """`start`, trouble, `stop`: then `calls` is the history."""

    def __init__(self, members: Sequence[Member], devices: Sequence[str], number: int, seed: str) -> None:
        self.members, self.devices = members, devices
        self.calls: list[Call] = []
        self.ending = threading.Event()
        self._seed = seed
        self._threads = [threading.Thread(target=self._use, args=(place,)) for place in range(number)]
        self._failures: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Until each has given back what it has. Raises what broke one of them."""
        self.ending.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def takes(self) -> int:
        """How many were granted, and known to be."""
        return sum(call.kind == "swap" and call.expected == FREE and call.ended < inf for call in self.calls)

    def read(self, member: Member, device: str) -> None:
        """Who holds it, as of now, by that member's word."""
        began = time.monotonic()
        status, said = talk(member, "GET", f"/1.0/gpus/{device}", linearizable=True)
        if status == 200:
            holders = [hold["instance"] for hold in said["metadata"]["holders"]]
            assert len(holders) <= 1, f"{device} is held by {holders}"
            found = holders[0] if holders else FREE
            self.calls.append(Call(device, "read", found, began, time.monotonic(), member=member.name))

    def _use(self, place: int) -> None:
        dice = random.Random(f"{self._seed}-{place}")
        try:
            number = 0
            while not self.ending.is_set():
                number += 1
                self._once(dice, f"u{place}-{number}", dice.choice(self.devices))
                time.sleep(dice.uniform(0, PAUSE))
        except BaseException as failure:
            self._failures.append(failure)
            raise

    def _once(self, dice: random.Random, name: str, device: str) -> None:
        member = dice.choice(self.members)
        began = time.monotonic()
        outcome = take(member, name, device, wait=dice.random() < 0.5, patience=dice.choice(PATIENCE))
        ended = inf if outcome == "unknown" else time.monotonic()
        self.calls.append(Call(device, "swap", name, began, ended, outcome, FREE, member.name))
        self.read(dice.choice(self.members), device)
        if outcome != "not applied":
            self._release(dice, name, device)

    def _release(self, dice: random.Random, name: str, device: str) -> None:
        """Until it is gone for sure, if that can be said at all by now."""
        for _ in range(60):
            member = dice.choice(self.members)
            began = time.monotonic()
            if (status := act(member, "DELETE", f"/1.0/instances/{name}", None, 10.0)[0]) == 200:
                self.calls.append(
                    Call(device, "swap", FREE, began, time.monotonic(), expected=name, member=member.name)
                )
                return
            if status != 404:
                unknown: Outcome = "unknown"
                self.calls.append(Call(device, "swap", FREE, began, inf, unknown, name, member.name))
            if talk(member, "GET", f"/1.0/instances/{name}", linearizable=True)[0] == 404:
                return
            time.sleep(PAUSE)


def take(member: Member, name: str, device: str, *, wait: bool, patience: float) -> Outcome:
    config = {"limits.gpu": "1", "gpu.match": f"uuid={device}", "gpu.hold": "always"}
    config |= {"gpu.wait": f"{WAIT}s"} if wait else {}
    body = {"name": name, "source": {"type": "none"}, "config": config}
    status, why = act(member, "POST", "/1.0/instances", body, patience + (WAIT if wait else 0))
    if status == 200:
        return "applied"
    return "not applied" if status == 503 or TOO_LATE in why else "unknown"


def act(member: Member, method: str, url: str, body: object, patience: float) -> tuple[int, str]:
    """Ask for it and wait until it is done: 200. Else the status of the refusal; 0 if nobody knows."""
    status, said = talk(member, method, url, body, patience)
    if status != 202:
        return status, str(said.get("error", ""))
    path, mark, query = said["operation"].partition("?")
    status, said = talk(member, "GET", f"{path}/wait{mark}{query}", None, patience)
    if status != 200 or said["metadata"]["status_code"] != 200:
        return 0, str((said.get("metadata") or {}).get("err", "")) if status == 200 else ""
    return 200, ""


def talk(
    member: Member,
    method: str,
    url: str,
    body: object = None,
    patience: float = 10.0,
    *,
    linearizable: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Status and answer; 0 if there was none. Where nobody listens nothing was done, as at 503."""
    headers = {"X-Lxdpy-Linearizable": "true"} if linearizable else {}
    with closing(Connection(member.socket, patience)) as connection:
        try:
            connection.connect()
        except OSError:
            return 503, {}
        try:
            connection.request(method, url, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, ValueError, http.client.HTTPException):
            return 0, {}
