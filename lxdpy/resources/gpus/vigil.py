"""How this host's cards are, from look to look. What was found is in the ledger; here is how long for."""

import time
from collections.abc import Iterable, Mapping

from cluster.state.txn import State
from lxdpy.config.server import SERVER
from lxdpy.host.gpu.drm import text
from lxdpy.host.gpu.health import Policy, Record, Verdict, next_record, xids_of
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.host.gpu.xids import XidListener
from lxdpy.host.paths import HostRoot
from lxdpy.resources.gpus.model import GpuRow
from lxdpy.resources.server.model import setting


class Vigil:
    """Over the cards of one host, which are looked for below `root`."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._records: dict[str, Record] = {}
        self._untold: dict[str, Verdict] = {}  # what the ledger said before, if it was not told since
        self.faults = XidListener(root)

    def look(self, cards: Iterable[Gpu], known: Mapping[str, GpuRow], policy: Policy) -> dict[str, Verdict]:
        """By uuid, what each card is worth now. `known` is the ledger, which others may have changed."""
        boot = text(self._root.proc / "sys/kernel/random/boot_id") or "the only one"
        heard = self.faults.drain()
        records = {}
        for gpu in cards:
            records[gpu.uuid] = next_record(
                self._record(gpu.uuid, known.get(gpu.uuid)),
                gpu.signs,
                [code for address, code in heard if address == gpu.pci_address],
                now=time.monotonic(),
                boot=boot,
                policy=policy,
            )
        self._untold = {uuid: _said(known.get(uuid)) for uuid in records}
        self._records = records
        return {uuid: record.verdict for uuid, record in records.items()}

    def told(self) -> None:
        """The ledger has what the last look found."""
        self._untold = {}

    def _record(self, uuid: str, row: GpuRow | None) -> Record:
        """What was found before: the ledger's word, for this may be another daemon, or an operator's wish.

        What the ledger could not be told yet counts for as long as it says what it said then: a fault is
        heard of once.
        """
        verdict, mine = _said(row), self._records.get(uuid)
        if mine is not None and verdict in (mine.verdict, self._untold.get(uuid)):
            return mine
        return Record(verdict=verdict)


def _said(row: GpuRow | None) -> Verdict:
    return Verdict(row.health, row.reason, row.lasting, row.boot) if row else Verdict()


def policy_of(state: State) -> Policy:
    """As the cluster's settings have it."""

    def said(key: str) -> str:
        return setting(state, key, SERVER.key(key).default or "")

    return Policy(
        xids=xids_of(said("gpu.health.xids")),
        probes=int(said("gpu.health.probes")),
        every=float(said("gpu.health.every")),
    )
