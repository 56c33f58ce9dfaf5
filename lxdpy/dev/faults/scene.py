"""A cluster and all that may be done to it: what the acts stand on."""

import random
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from lxdpy.dev.api import Refused
from lxdpy.dev.faults.disks import Disk, settle
from lxdpy.dev.faults.links import Links
from lxdpy.dev.faults.pulse import Trouble
from lxdpy.dev.members import Cluster, Member, NotReady

CLOCK = Path(__file__).parent / "clock"  # a folder for PYTHONPATH
SETTLE_WITHIN = 5.0  # seconds for the threads of a stopped process to stop
PAUSE = 0.005  # seconds between looks
FATAL = 3  # exit status of a daemon that must not take part any more


class Scene:
    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        self.links = Links(cluster.net)
        self.disks = {member.name: Disk(member) for member in cluster.members}
        self.done: Counter[str] = Counter()  # what was injected, by name
        self.troubles: list[Trouble] = []
        self.kills = 0
        self.surprises: list[str] = []  # daemons that ended though nothing was done to them
        self._down: set[str] = set()  # are not meant to run

    @property
    def members(self) -> list[Member]:
        return self.cluster.members

    def up(self) -> None:
        """Namespaces, disks, daemons, and the cluster."""
        cluster = self.cluster
        cluster.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        cluster.net.up()
        for member in cluster.members:
            self.disks[member.name].make()
            self.clock(member, 0)
        cluster.up(PYTHONPATH=str(CLOCK))
        cluster.join()

    def leader(self) -> Member | None:
        """As far as any member knows."""
        for member in self.dice.sample(self.members, len(self.members)):
            with suppress(OSError, Refused, ValueError):
                rows = member.ask("GET", "/1.0/cluster/members?recursion=1", timeout=0.5)
                names = [row["server_name"] for row in rows if "database-leader" in row["roles"]]
                return next((other for other in self.members if other.name in names), None)
        return None

    def others(self, member: Member) -> list[str]:
        return [other.name for other in self.members if other is not member]

    # Daemons

    def start(self, member: Member, failpoints: str = "", *, wait: bool = False) -> None:
        """Start it, unless it runs. With failpoints it may end at any time, by that."""
        self._down.discard(member.name)
        variables = {"LXDPY_FAILPOINTS": failpoints} if failpoints else {}
        member.start(wait=False, PYTHONPATH=str(CLOCK), **variables)
        if failpoints:
            self.excuse(member)
        if wait:
            self._wait(member)

    def excuse(self, member: Member) -> None:
        """It may end on its own from now until it is started again."""
        self._down.add(member.name)

    def _wait(self, member: Member) -> None:
        try:
            member.wait_ready()
        except NotReady as failure:
            self.surprises.append(str(failure))

    def kill(self, member: Member) -> None:
        self._down.add(member.name)
        if member.pid() is not None:
            self.kills += 1
            member.kill()

    def stop(self, member: Member) -> None:
        """As an operator does."""
        self._down.add(member.name)
        member.stop()

    def cut_power(self, member: Member) -> None:
        """No thread runs, no answer leaves any more when the disk goes: what was said before, was synced."""
        self._down.add(member.name)
        pid = member.pid()
        if pid is not None:
            member.freeze()
            deadline = time.monotonic() + SETTLE_WITHIN
            while not settle(pid) and time.monotonic() < deadline:
                time.sleep(PAUSE)
        disk = self.disks[member.name]
        disk.do("cut")
        self.kill(member)
        disk.unmount()
        disk.mount()

    def clock(self, member: Member, seconds: float) -> None:
        """How far the member's wall clock is off from now on."""
        fresh = member.folder.with_suffix(".clock.new")
        fresh.write_text(str(seconds))
        fresh.rename(member.folder.with_suffix(".clock"))

    # Care

    def look(self) -> None:
        """Note who ended on its own, and start it again."""
        for member in self.members:
            if member.name not in self._down and member.pid() is None:
                self.surprises.append(f"{member.name} ended on its own:\n{member.tail(15)}")
                self.start(member)

    def heal(self) -> None:
        """Nothing is wrong any more, and all run. Raises NotReady."""
        self.links.heal()
        for member in self.members:
            with suppress(NotReady):
                member.thaw()
            self.clock(member, 0)
        self.look()
        for member in self.members:
            if member.name in self._down:
                self.kill(member)  # it may run with failpoints
            self.start(member)
        for member in self.members:
            member.wait_ready()

    def down(self) -> None:
        self.cluster.down()
        shutil.rmtree(self.cluster.state, ignore_errors=True)
