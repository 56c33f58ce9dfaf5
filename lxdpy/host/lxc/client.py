"""The daemon's side of the helper process: requests, and programs running in containers."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.errors import Conflict, Error, Invalid, Unavailable, Uncertain
from lxdpy.host.lxc import wire
from lxdpy.host.lxc.turns import Turns
from lxdpy.host.run import ENVIRONMENT

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds for a request: a mount takes some ms; a storage that hangs must not hang us
STOP_WITHIN = (
    5.0  # seconds for the helper to see that we are gone; it takes 1 ms unless the host is on its knees
)

PATIENCE = 0.5  # seconds a launch counts as work; it takes 5 to 20 ms, or hangs on what the container did

HEARD_AT_ONCE = 2  # messages; what follows the end of an attached program takes 1 to 2 ms

LAUNCHES = ("attach", "files")  # what leaves a process behind

BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from lxdpy.host.lxc.helper import main; main(int(sys.argv[1]))"
)
SOURCES = Path(__file__).parents[3]


class HelperFailed(Error):
    """The helper could not do it; facts: operation, errno (a name such as EBUSY, or "")."""


class ExecRequest(msgspec.Struct, frozen=True):
    """A program to run in a container. Ids are the container's; the environment is all it gets."""

    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    cwd: str = "/"
    """A folder that is not there becomes `/`, as with LXD."""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


class ExecSession:
    """A program that runs in a container."""

    def __init__(self) -> None:
        self.pid = 0
        """On the host."""
        self._pidfd = -1
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """Raises Conflict when the program has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                return signal.pidfd_send_signal(self._pidfd, number)
        raise Conflict("The program has ended")

    async def wait(self) -> int:
        """Its exit status; 126: not executable, 127: not found, 128+n: ended by signal n; as LXD tells it.

        Raises Uncertain when the helper died, and with it the knowledge.
        """
        return await asyncio.shield(self._exit)

    async def gone(self) -> None:
        """Until it has ended, or nobody knows: `wait` without its result."""
        await asyncio.wait([self._exit])

    def attached(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd

    def ended(self, status: int) -> None:
        self._close()
        if not self._exit.done():
            self._exit.set_result(status if status >= 0 else 128 - status)

    def lost(self) -> None:
        self._close()
        if not self._exit.done():
            self._exit.set_exception(Uncertain("The helper died; the exit status of the program is unknown"))
            self._exit.exception()  # nobody need be waiting

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class HelperClient:
    """Starts the helper when it is first needed, and again if it died."""

    def __init__(self) -> None:
        self._end: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._buffer = wire.buffer()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._sessions: dict[int, ExecSession] = {}
        self._starting = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._roomy = asyncio.Event()  # for who waits to send
        # A thousand children at once would leave the daemon itself no processor for seconds.
        self._turns = Turns(max(4, os.cpu_count() or 1), PATIENCE)

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._process.pid if self._process and self._end else 0

    async def start(self) -> None:
        """Fine if it runs."""
        async with self._starting:
            if self._end:
                return
            ours, theirs = wire.pair()
            with theirs:
                # A fresh program, not a fork: it must not hold our memory and descriptors. Its own session:
                # ^C in the daemon's terminal is not for it. Without `site`, whose imports are dear to fork.
                path = [str(SOURCES), *filter(os.path.isabs, sys.path)]
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-IS", "-c", BOOT, str(theirs.fileno()), *path,
                    pass_fds=[theirs.fileno()], start_new_session=True, env=dict(ENVIRONMENT), cwd="/",
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            ours.setblocking(False)
            self._end = ours
            asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)

    async def stop(self) -> None:
        """Programs in containers run on; nobody will know how they end."""
        self._lost()
        if self._process:
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def call(
        self, op: str, fds: Sequence[int] = (), *, timeout: float = TIMEOUT, **arguments: Any
    ) -> Any:
        """Have `op` of the helper done. Descriptors stay the caller's.

        Raises HelperFailed; Conflict when what it is about is in use; Unavailable when the helper died or
        `timeout` (seconds) passed: it was ended then, and may have been done.
        """
        return await self._ask(next(self._numbers), op, fds, timeout, arguments)

    async def launch(self, op: str, fds: Sequence[int], **arguments: Any) -> ExecSession:
        """Have a process left behind, by one of LAUNCHES; the descriptors stay the caller's."""
        async with self._turns.turn():
            session = ExecSession()
            number = next(self._numbers)
            self._sessions[number] = session
            try:
                await self._ask(number, op, fds, TIMEOUT, arguments)
            except BaseException:
                # It may have begun just as its caller was given up.
                with contextlib.suppress(Conflict):
                    session.signal(signal.SIGKILL)
                if not session.pid:
                    self._sessions.pop(number, None)  # not there if the helper died
                raise
            return session

    async def _ask(
        self, number: int, op: str, fds: Sequence[int], timeout: float, arguments: dict[str, Any]
    ) -> Any:
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self.start()
                await self._send({"id": number, "op": op, **arguments}, fds)
                return await answer
        except TimeoutError:
            raise Unavailable(f"The helper did not finish {op} within {timeout:g} s") from None
        finally:
            del self._answers[number]
            # A launch is let finish: ended half-way it could leave its program behind, while one that comes
            # too late is ended when its answer comes.
            if op not in LAUNCHES and (not answer.done() or answer.cancelled()):
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        if self._end:
            with contextlib.suppress(OSError):
                wire.send(self._end, {"op": "cancel", "id": number})

    async def _send(self, message: wire.Message, fds: Sequence[int]) -> None:
        async with self._sending:
            while True:
                if self._end is None:
                    raise Unavailable("The helper died")
                try:
                    return wire.send(self._end, message, fds)
                except BlockingIOError:
                    await self._room(self._end)
                except OSError as error:
                    if error.errno == errno.EMSGSIZE:
                        raise Invalid("Arguments and environment are too long") from None
                    raise Unavailable("The helper died") from None

    async def _room(self, end: socket.socket) -> None:
        """Until more can be sent, or the helper is lost, whose descriptor may soon be another's."""
        loop = asyncio.get_running_loop()
        self._roomy = asyncio.Event()
        loop.add_writer(end.fileno(), self._roomy.set)
        try:
            await self._roomy.wait()
        finally:
            if self._end is end:
                loop.remove_writer(end.fileno())

    def _receive(self) -> None:
        """Some of what came; the rest when others had their turn: a thousand programs may end at once."""
        for _ in range(HEARD_AT_ONCE):
            if self._end is None:
                return
            try:
                message, fds = wire.receive(self._end, self._buffer)
            except BlockingIOError:
                return
            except OSError:
                message, fds = None, []
            if message is None:
                log.error("the helper died; it is started again when it is needed")
                self._lost()
            else:
                self._handle(message, fds)

    def _handle(self, message: wire.Message, fds: list[int]) -> None:
        number = message["id"]
        if "exit" in message:
            if session := self._sessions.pop(number, None):
                session.ended(message["exit"])
            return
        answer = self._answers.get(number)
        if answer is None or answer.done():
            # Who asked has gone; what was attached too late must not stay.
            for pidfd in fds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        elif "error" in message:
            answer.set_exception(_error(message))
        else:
            if session := self._sessions.get(number):
                session.attached(message["result"]["pid"], fds[0] if fds else -1)
            answer.set_result(message["result"])

    def _lost(self) -> None:
        if self._end is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._end.fileno())
        loop.remove_writer(self._end.fileno())
        self._end.close()
        self._end = None
        self._roomy.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable("The helper died"))
        for session in self._sessions.values():
            session.lost()
        self._sessions.clear()


def _error(message: wire.Message) -> Error:
    number = message["errno"]
    facts = {"errno": errno.errorcode.get(number, "")}
    kind = Conflict if number == errno.EBUSY else HelperFailed
    return kind(message["error"], **facts)
