"""Trouble on the way between members: nothing, not all, or little gets through. By nftables and tc."""

from collections.abc import Iterable

from lxdpy.dev.netns import Net, run

TABLE = "lxdpy_faults"


class Links:
    """Each trouble is in the namespace of the member that does not hear, or that sends slowly. Not for
    clients: they use sockets of the host.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._troubled: set[str] = set()
        self._slow: set[str] = set()

    def deafen(self, name: str, to: Iterable[str], percent: int = 100) -> None:
        """The member loses so many of the packets that these send; what it sends itself arrives."""
        chain = f"add chain inet {TABLE} input {{ type filter hook input priority -300; }}"
        loss = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        rules = [f"add rule inet {TABLE} input ip saddr {self.net.address(other)} {loss}drop" for other in to]
        self._troubled.add(name)
        self._enter(name, "nft", "; ".join([f"add table inet {TABLE}", chain, *rules]))

    def part(self, here: Iterable[str], there: Iterable[str]) -> None:
        """Neither side hears the other."""
        here, there = list(here), list(there)
        for name in here:
            self.deafen(name, there)
        for name in there:
            self.deafen(name, here)

    def slow(self, name: str, kilobits: int) -> None:
        """The member sends no faster, and what waits is late."""
        self._slow.add(name)
        shaper = f"tbf rate {kilobits}kbit burst 4kb latency 800ms"
        self._enter(name, "tc", "qdisc", "replace", "dev", "eth0", "root", *shaper.split())

    def heal(self) -> None:
        for name in self._troubled:
            self._enter(name, "nft", f"delete table inet {TABLE}")
        for name in self._slow:
            self._enter(name, "tc", "qdisc", "del", "dev", "eth0", "root")
        self._troubled.clear()
        self._slow.clear()

    def _enter(self, name: str, *words: str) -> None:
        run(*self.net.enter(name, *words))
