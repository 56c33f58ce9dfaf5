"""The faults that NVIDIA's driver reports: NVML tells them once, to those who wait for them."""

import ctypes
import logging
import threading
from collections import deque
from typing import Any

from lxdpy.host.gpu import nvml
from lxdpy.host.gpu.nvidia import information
from lxdpy.host.gpu.probe import LIBRARY
from lxdpy.host.paths import HostRoot

log = logging.getLogger(__name__)

WAIT = 1.0  # seconds to wait for a fault before looking whether there are other cards now
AGAIN = 2.0  # seconds until trying again where there is no NVML
MOST = 10_000  # faults kept for somebody to ask for them


class XidListener:
    """A thread that waits for faults, from `start` to `stop`. Where there is no NVML it waits for that."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._heard: deque[tuple[str, int]] = deque(maxlen=MOST)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="xids", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends within `WAIT`."""
        self._stop.set()

    def drain(self) -> list[tuple[str, int]]:
        """PCI address and code of each fault since the last call, in order."""
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def pending(self) -> bool:
        return bool(self._heard)

    def _run(self) -> None:
        while not self._stop.is_set():
            if library := self._library():
                try:
                    self._listen(library)
                except library.NVMLError as failure:
                    log.debug("NVML tells no faults: %s", failure)
            self._stop.wait(AGAIN)

    def _library(self) -> Any:
        """The binding; None where NVIDIA's driver is not, or the tree is made up without a library."""
        if not (self._root.proc / "driver/nvidia").exists():
            return None
        if self._root == HostRoot():
            return nvml.binding()
        own = self._root.proc / LIBRARY
        return nvml.binding(own) if own.exists() else None

    def _listen(self, library: Any) -> None:
        """Until stopped, or until there are other cards."""
        library.nvmlInit()
        events = library.nvmlEventSetCreate()
        try:
            while not self._stop.is_set():
                there = set(information(self._root))
                self._hear(library, events, _registered(library, events), there)
                library.nvmlEventSetFree(events)
                events = library.nvmlEventSetCreate()
        finally:
            library.nvmlEventSetFree(events)
            library.nvmlShutdown()

    def _hear(self, library: Any, events: Any, address: dict[int, str], there: set[str]) -> None:
        while not self._stop.is_set() and there == set(information(self._root)):
            try:
                event = library.nvmlEventSetWait_v2(events, int(WAIT * 1000))
            except library.NVMLError as failure:
                if failure.value == library.NVML_ERROR_TIMEOUT:
                    continue
                raise
            if found := address.get(_place(event.device)):
                log.warning("NVIDIA's driver reports XID %d of the GPU at %s", event.eventData, found)
                self._heard.append((found, int(event.eventData)))


def _registered(library: Any, events: Any) -> dict[int, str]:
    """By handle, the addresses of the cards that are listened to: a lost one does not tell its own."""
    found = {}
    for address, handle in nvml.handles(library):
        try:
            library.nvmlDeviceRegisterEvents(handle, library.nvmlEventTypeXidCriticalError, events)
        except library.NVMLError as deaf:
            log.debug("no faults are told of the GPU at %s: %s", address, deaf)
            continue
        found[_place(handle)] = address
    return found


def _place(handle: Any) -> int:
    return ctypes.addressof(handle.contents)
