"""File servers of this member's instances: begun when somebody wants files, kept for a while for the next.

A server in a running container holds its mounts, one of a stopped instance its disk, mounted for that with
ids as they are. So who starts, stops, renames or deletes an instance ends them first (`end`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import Unavailable
from lxdpy.host.lxc.files import FileServer, serve_folder
from lxdpy.host.sftp.client import Sftp
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import built, volume_of
from lxdpy.resources.instances.rename import moved

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

KEPT = 5.0  # seconds a server waits for the next request; `lxc file push -r` makes one for each file
MOST_KEPT = 4  # servers an instance has waiting; each takes 2 MB


@dataclass(eq=False)
class Session:
    key: str
    volume: str
    init: int  # first process of the container it is in; 0: the instance was stopped
    server: FileServer
    sftp: Sftp | None = None  # for who speaks to it from here
    timer: asyncio.TimerHandle | None = None  # while nobody does


class FileSessions:
    """All of this member's."""

    def __init__(self) -> None:
        self._sessions: dict[str, set[Session]] = {}  # by volume
        self.daemon: Daemon  # set by the daemon's main, once there is one

    @asynccontextmanager
    async def sftp(self, key: str) -> AsyncIterator[Sftp]:
        """To see to files of an instance; raises Unavailable when it starts or stops meanwhile."""
        session = self._waiting(key) or await self._begin(key)
        try:
            if session.sftp is None:
                session.sftp = await Sftp.over(session.server.take())
            yield session.sftp
        except ConnectionError:
            if session.sftp is not None and not session.sftp.closed:
                raise  # it is the client that is gone
            raise Unavailable("The instance was started or stopped meanwhile; try again") from None
        finally:
            await self._give_back(session)

    @asynccontextmanager
    async def server(self, key: str) -> AsyncIterator[FileServer]:
        """For one user of its own."""
        session = await self._begin(key)
        try:
            yield session.server
        finally:
            await self._end(session)

    async def end(self, volume: str) -> None:
        """End all of an instance; its users' connections break. The caller holds its lock. Idempotent."""
        await asyncio.gather(*(self._end(session) for session in self._sessions.pop(volume, ())))

    def holds(self, volume: str) -> bool:
        """Whether there is one; the disk of a stopped instance is mounted as long as there is."""
        return bool(self._sessions.get(volume))

    def event(self, volume: str, event: str) -> None:
        """From the runtime: servers must not hold what a container had that is gone."""
        if event in ("stopped", "rebooted"):
            for session in [*self._sessions.get(volume, ())]:
                if session.init:
                    self.daemon.spawn(self._end(session), f"end file server of {volume}")

    def _waiting(self, key: str) -> Session | None:
        """One that nobody uses, in the container as it runs now."""
        row = built(self.daemon, key)
        init = self.daemon.runtime.state(row.volume).init_pid
        for session in self._sessions.get(row.volume, ()):
            if session.timer is not None and session.init == init:
                session.timer.cancel()
                session.timer = None
                return session
        return None

    async def _begin(self, key: str) -> Session:
        daemon = self.daemon
        row = built(daemon, key)
        if daemon.runtime.state(row.volume).status == "Stopped":
            async with daemon.lock(f"instance {key}"):
                row = await moved(daemon, built(daemon, key))
                if daemon.runtime.state(row.volume).status == "Stopped":
                    return await self._begin_stopped(row)
        init = daemon.runtime.state(row.volume).init_pid
        session = self._known(row, init, await daemon.runtime.serve_files(row.volume))
        if daemon.runtime.state(row.volume).init_pid != init:  # those who end sessions did not know of it
            await self._end(session)
            raise Unavailable("The instance was started or stopped meanwhile; try again")
        return session

    async def _begin_stopped(self, row: Instance) -> Session:
        """Under the lock. Unmapped, as root of the host can make no files through a map."""
        mount = await self.daemon.pools.driver(row.pool).mount(volume_of(row), None)
        return self._known(row, 0, await serve_folder(self.daemon.runtime.helper, mount.path))

    def _known(self, row: Instance, init: int, server: FileServer) -> Session:
        session = Session(row.key, row.volume, init, server)
        self._sessions.setdefault(row.volume, set()).add(session)
        return session

    async def _give_back(self, session: Session) -> None:
        mates = self._sessions.get(session.volume, set())
        waiting = sum(mate.timer is not None for mate in mates)
        if session not in mates or waiting >= MOST_KEPT or not (session.sftp and session.sftp.usable):
            await self._end(session)
        else:
            loop = asyncio.get_running_loop()
            session.timer = loop.call_later(KEPT, self._expire, session)

    def _expire(self, session: Session) -> None:
        session.timer = None  # from here on nobody gets it
        self.daemon.spawn(self._end(session), f"end file server of {session.volume}")

    async def _end(self, session: Session) -> None:
        if session.timer is not None:
            session.timer.cancel()
            session.timer = None
        if session.sftp is not None:
            session.sftp.close()
        await session.server.end()
        mates = self._sessions.get(session.volume)
        if mates is None or session not in mates:
            return
        mates.discard(session)
        if not mates:
            del self._sessions[session.volume]
            if not session.init:
                self.daemon.spawn(self._let_go(session), f"unmount {session.volume}")

    async def _let_go(self, session: Session) -> None:
        """Unmount what nobody looks at any more, unless the instance was started meanwhile."""
        daemon = self.daemon
        async with daemon.lock(f"instance {session.key}"):
            row = daemon.state.find(INSTANCES, session.key)
            if row is None or row.location != daemon.member_id or self.holds(row.volume) or row.move:
                return  # who moves it is reading it
            if daemon.runtime.state(row.volume).status == "Stopped":
                await daemon.pools.driver(row.pool).unmount(volume_of(row))
