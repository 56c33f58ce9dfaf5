"""Whether the kernel has said that devices came or went, so that one is noticed at once.

A hint only: messages get lost when many come, and none come where the kernel does not let us listen. Whoever
asks looks again after some seconds anyway.
"""

import contextlib
import logging
import socket
from collections.abc import Collection

log = logging.getLogger(__name__)

NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
KERNEL = 1  # the group of the kernel's own messages; udev's are 2
LONGEST = 8192  # bytes of a message; the kernel's own limit is 2048


class Uevents:
    """One listener for messages of some subsystems, for as long as it is not closed."""

    def __init__(self, subsystems: Collection[str]) -> None:
        self._subsystems = subsystems
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT
            )
            self._socket.bind((0, KERNEL))
        except OSError as denied:
            log.info("the kernel's messages on devices are not to be had: %s", denied)
            self.close()

    def fileno(self) -> int:
        """To wait on until something is pending; -1 if there is nothing to hear."""
        return self._socket.fileno() if self._socket is not None else -1

    def pending(self) -> bool:
        """Whether something that matters has been said since the last call. Never waits."""
        told = False
        while self._socket is not None:
            try:
                told = concerns(self._socket.recv(LONGEST), self._subsystems) or told
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more came than there was room for
                told = True
        return told

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None


def concerns(message: bytes, subsystems: Collection[str]) -> bool:
    """Whether it is about one of the subsystems.

    A message is `add@/devices/…` and then KEY=value, each ended by a zero byte.
    """
    fields = dict(field.partition(b"=")[::2] for field in message.split(b"\0")[1:])
    return fields.get(b"SUBSYSTEM", b"").decode(errors="replace") in subsystems
