"""The stock client on a terminal, as a person uses it."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time

from integration.harness import LXC
from lxdpy.dev.members import Member

ENDS_SOON = 5  # seconds in which a client ends that was told to
ENDS_WITHIN = 60  # seconds, on a busy machine


class Screen:
    """`lxc` on a terminal of 31 rows and 97 columns."""

    def __init__(self, via: Member, *words: str) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        via.take_turn()
        config = via.folder.parent / "lxc-config"
        self._client = subprocess.Popen(
            [LXC, *words], env=via.environment | {"LXD_CONF": str(config), "HOME": str(config)},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.said = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.kill()
        self._client.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, wanted: str, within: float = 60) -> str:
        """What was said up to then; a later call begins behind it."""
        deadline = time.monotonic() + within
        while wanted not in self.said:
            assert time.monotonic() < deadline, f"no {wanted!r} in {self.said!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # the client has ended
                    time.sleep(0.1)
        before, _, self.said = self.said.partition(wanted)
        return before + wanted

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._client.send_signal(signal.SIGWINCH)

    def detach(self) -> int:
        """By ctrl-a q; the client looks for one key each time it reads."""
        for _ in range(ENDS_WITHIN // ENDS_SOON):
            self.type("\x01")
            time.sleep(0.3)
            self.type("q")
            try:
                return self._client.wait(ENDS_SOON)
            except subprocess.TimeoutExpired:
                continue  # it read both at once
        return self.wait()

    def wait(self) -> int:
        return self._client.wait(ENDS_WITHIN)
