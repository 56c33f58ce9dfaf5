"""Who holds which card, in files that NVIDIA's dcgm-exporter reads (`--hpc-job-mapping-dir`).

One file a card, named by its index in the order that NVIDIA's tools give (by PCI address), with a line for
each instance that holds it, or a part of it: dashboards that show jobs then show our instances. Off unless
the server's `gpu.job_mapping` names a folder, on each member the same.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.state.txn import State
from lxdpy.resources.gpus.commands import parts_of
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.server.model import setting

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

KEY = "gpu.job_mapping"
LOOK_EVERY = 2.0  # seconds; dcgm-exporter reads them every 30


class JobMap:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._written: tuple[str, Mapping[str, str]] = ("", {})

    async def step(self) -> None:
        """Bring the files in line with the ledger. Writes nothing while they are."""
        state = self._daemon.state
        folder = setting(state, KEY, "")
        wanted = (folder, jobs(state, self._daemon.member_id) if folder else {})
        if wanted == self._written:
            return
        before, self._written = self._written, ("", {})  # not known until it is done
        try:
            await asyncio.to_thread(write, *before, {} if before[0] != folder else wanted[1])
            await asyncio.to_thread(write, folder, {}, wanted[1])
        except OSError as failure:
            log.warning("%s: %s", KEY, failure)
            return
        self._written = wanted


def jobs(state: State, member: str) -> dict[str, str]:
    """Content by file name, of the member's NVIDIA cards."""
    cards = [row for row in state.rows(GPUS).values() if row.member == member and row.vendor == "nvidia"]
    cards = sorted((row for row in cards if not row.parent), key=lambda row: row.pci_address)
    return {
        str(index): "".join(
            f"{holder.instance.removeprefix('default/')}\n"
            for one in (card, *parts_of(state, card.uuid))
            for holder in one.holders
        )
        for index, card in enumerate(cards)
    }


def write(folder: str, before: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Each file whole or not at all; those of `before` that are not wanted any more go. Raises OSError."""
    if not folder:
        return
    if wanted:
        Path(folder).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in before.keys() - wanted.keys():
        Path(folder, name).unlink(missing_ok=True)
    for name, content in wanted.items():
        fresh = Path(folder, f".{name}.new")
        fresh.write_text(content)
        fresh.replace(Path(folder, name))
