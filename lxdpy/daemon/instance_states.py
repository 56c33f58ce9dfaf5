"""What the runtime says of running instances: this member's own, and what the other owners last told.

Owners push; readers never ask. So a list is answered from memory wherever it is asked for, and a dead member
delays nobody: what it last said is shown, with its age known.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.errors import NotFound
from lxdpy.host.cgroups import Usage
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, STATUS_CODES, Instance
from lxdpy.resources.instances.ready import is_ready

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

CAST = "states"
REFRESH_EVERY = 10.0  # seconds between full rounds; what the others' lists tell is as old as that at most
FRESH_FOR = 1.0  # seconds in which the owner's lists do not look again: 48 instances take 35 ms
AFTER_CHANGE = (0.05, 0.7, 2.0, 5.0)  # seconds after a start: an address comes with DHCP, in 0.3 to 4 s
TOGETHER = 0.2  # seconds: starts that are no further apart are looked at in one go, which is what it costs
MOST_AT_ONCE = 100  # instances that a list waits for: 75 ms
PER_CAST = 200  # instances in one message: some 200 kB

OUTDATED = float("-inf")

STOPPED: dict[str, Any] = {
    "status": "Stopped",
    "status_code": STATUS_CODES["Stopped"],
    "disk": {},
    "memory": {"usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0},
    "network": None,
    "pid": 0,
    "processes": 0,
    "cpu": {"usage": 0},
}


class Seen(msgspec.Struct, frozen=True):
    """One instance's state, encoded as LXD shows it, and when it was taken here (monotonic seconds)."""

    state: msgspec.Raw
    at: float


class InstanceStates:
    """The cache. Keys are instances' uuids: a name may be used again."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._due: dict[int, dict[str, Instance]] = {}
        """Whom to look at, by when: so many times TOGETHER."""
        self.daemon: Daemon  # set by the daemon's main, once there is one

    def shown(self, row: Instance) -> msgspec.Raw:
        """The state for lists. Never waits."""
        seen = self._seen.get(row.uuid)
        if seen is not None and row.status in ("Running", "Frozen"):
            return seen.state
        code = STATUS_CODES[row.status]
        return msgspec.Raw(msgspec.json.encode({**STOPPED, "status": row.status, "status_code": code}))

    async def fresh(self, rows: Iterable[Instance]) -> None:
        """Look at those instances of this member of which nothing is known that is younger than FRESH_FOR.

        If they are many, only at those that changed: of the others the last round tells, and nobody waits.
        """
        limit = time.monotonic() - FRESH_FOR
        old = [row for row in rows if self._seen_at(row) < limit]
        if len(old) > MOST_AT_ONCE:
            old = [row for row in old if self._seen_at(row) == OUTDATED][:MOST_AT_ONCE]
        await self.live(old)

    def _seen_at(self, row: Instance) -> float:
        seen = self._seen.get(row.uuid)
        return OUTDATED if seen is None else seen.at

    async def live(self, rows: Iterable[Instance]) -> None:
        """Look anew at instances of this member, and keep what was seen."""
        runtime, now = self.daemon.runtime, time.monotonic()
        by_name = {row.volume: row for row in rows}
        if not by_name:
            return
        networks, usages = await asyncio.gather(
            runtime.networks(by_name),
            asyncio.to_thread(lambda: {name: runtime.usage(name) for name in by_name}),
        )
        for name, row in by_name.items():
            if (state := runtime.state(name)).init_pid:
                shown = _state_of(row, state, usages[name], networks.get(name, {}))
                self._seen[row.uuid] = Seen(msgspec.Raw(msgspec.json.encode(shown)), now)

    def own(self) -> list[Instance]:
        """This member's instances that should be running."""
        me = self.daemon.member_id
        rows = self.daemon.state.rows(INSTANCES).values()
        return [row for row in rows if row.location == me and row.status in ("Running", "Frozen")]

    def changed(self, row: Instance) -> None:
        """An instance started, froze or went on: look soon, and again when it may have got its address."""
        if seen := self._seen.get(row.uuid):
            self._seen[row.uuid] = msgspec.structs.replace(seen, at=OUTDATED)
        now = asyncio.get_running_loop().time()
        for after in self._waits(row):
            slot = int((now + after) / TOGETHER) + 1
            if slot not in self._due:
                self._due[slot] = {}
                self.daemon.spawn(self._look(slot), "states of instances that changed")
            self._due[slot][row.uuid] = row

    def _waits(self, row: Instance) -> Sequence[float]:
        """Without a network it will get no address."""
        with contextlib.suppress(NotFound):  # it is gone by now, and its project
            if any(options.get("type") == "nic" for options in expanded(self.daemon.state, row)[1].values()):
                return AFTER_CHANGE
        return AFTER_CHANGE[:1]

    async def _look(self, slot: int) -> None:
        await asyncio.sleep(slot * TOGETHER - asyncio.get_running_loop().time())
        rows = self._due.pop(slot).values()
        await self.live(rows)
        self.push(rows)

    def linked(self, member: str, up: bool) -> None:
        """A member that has just come, or come back, knows nothing yet."""
        if up:
            self.push(self.own(), to=member)

    def push(self, rows: Iterable[Instance], to: str | None = None) -> None:
        """Tell the others, or one of them, what was last seen here."""
        known = {row.uuid: bytes(self._seen[row.uuid].state) for row in rows if row.uuid in self._seen}
        names = sorted(known)
        for start in range(0, len(names), PER_CAST):
            part = {name: known[name] for name in names[start : start + PER_CAST]}
            self.daemon.store.cast({"type": CAST, "states": part}, to)

    def heard(self, _member: str, message: dict[str, Any]) -> None:
        if message.get("type") == CAST:
            now = time.monotonic()
            for uuid, state in message["states"].items():
                self._seen[uuid] = Seen(msgspec.Raw(state), now)

    async def refresh(self) -> None:
        """Look at all of this member's, tell the others, and forget instances that are gone."""
        rows = self.own()
        await self.live(rows)
        self.push(rows)
        if not self.daemon.current:
            return  # an old state does not know those that were made since
        alive = {row.uuid for row in self.daemon.state.rows(INSTANCES).values()}
        self._seen = {uuid: seen for uuid, seen in self._seen.items() if uuid in alive}


def _state_of(row: Instance, state: ContainerState, usage: Usage, network: dict[str, Any]) -> dict[str, Any]:
    ready = state.status == "Running" and is_ready(row)
    status = "Ready" if ready else state.status
    return {
        "status": status,
        "status_code": STATUS_CODES[status],
        "disk": {},
        "memory": {
            "usage": usage.memory,
            "usage_peak": usage.memory_peak,
            "swap_usage": usage.swap,
            "swap_usage_peak": usage.swap_peak,
        },
        "network": network,
        "pid": state.init_pid,
        "processes": usage.processes,
        "cpu": {"usage": usage.cpu},
    }
