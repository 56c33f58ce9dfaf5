"""A file system of its own for each member's log and identity, which can be full, torn, or lose its power."""

import sys
from pathlib import Path

from lxdpy.dev.members import Member
from lxdpy.dev.netns import run

SIZE = 96 << 20  # bytes; a log is compacted at 16 MiB, and is there twice meanwhile


class Disk:
    """Mounted in the member's mount namespace only, on `$LXD_DIR/cluster`; gone with the namespace."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.folder = member.folder / "cluster"
        self._image = member.folder.with_suffix(".disk")

    def make(self) -> None:
        """Once the namespaces are there, before the daemon is started."""
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self.folder.mkdir(mode=0o711, parents=True)
        self.mount()

    def mount(self) -> None:
        self._enter("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def unmount(self) -> None:
        self._enter("umount", str(self.folder))

    def repair(self) -> None:
        """After an error, while no daemon runs."""
        self.unmount()
        self._enter("sh", "-c", 'e2fsck -p "$0" || [ $? = 1 ]', str(self._image))  # 1: it was repaired
        self.mount()

    def do(self, verb: str, *words: str) -> None:
        """A verb of `within`."""
        within = ("-m", "lxdpy.dev.faults.within", verb, str(self.folder), *words)
        self._enter(sys.executable, *within)

    def _enter(self, *words: str) -> None:
        run(*self.member.net.enter(self.member.name, *words), environment=self.member.environment)


def settle(pid: int) -> bool:
    """Whether all threads of a process that got SIGSTOP have stopped; one may be in the middle of a sync."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        states.append(stat.read_text().rpartition(")")[2].split()[0])
    return all(state == "T" for state in states)
