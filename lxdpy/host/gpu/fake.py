"""`--fake-gpus FILE`: GPUs that are not there, for trying the cluster and for testing it without hardware.

A private tree with sysfs, /proc/driver and device files is built below a folder of the daemon's and read by
the same code as a real host's. The shared /dev is never touched. Removing an entry from the file is losing
the card; cards that stay keep their device files. What can be said in the file: `fake_spec.py`.
"""

import os
from pathlib import Path

import msgspec

from cluster.errors import Invalid, NotFound, Unavailable, Unsupported
from lxdpy.host.gpu.fake_cdi import specs
from lxdpy.host.gpu.fake_nvml import build
from lxdpy.host.gpu.fake_spec import FakeHost, parse
from lxdpy.host.gpu.fake_tree import MakeNode, Numbers, majors, majors_in_use, mknod, numbered, tree, write
from lxdpy.host.paths import HostRoot, under

GONE = (0, -1)  # stamp of a file that is not there
NUMBERS = "numbers.json"  # beside the tree: which device numbers the cards have


class FakeGpus:
    """The file, and the tree built from it. `member` makes the made-up uuids unlike other members'."""

    def __init__(self, file: Path, folder: Path, member: str, make_node: MakeNode = mknod) -> None:
        self._file, self._folder, self._member = file, folder, member
        self._make_node = make_node
        self._seen: tuple[int, int] | None = None
        self.root = under(folder.absolute() / "root")

    def refresh(self) -> bool:
        """Build the tree if the file has changed since the last call; whether it had.

        Raises NotFound without a file, Invalid for what it says or where the tree is, Unsupported where
        device files cannot be made, Unavailable for a first file that is just being written. A file is
        refused once, and then leaves the tree as it was. One that has become empty is about to be written.
        """
        stamp, before = self._stamp(), self._seen
        self._seen = stamp
        if stamp == GONE:
            raise NotFound(f"Fake GPUs: {self._file}: there is no such file", file=str(self._file))
        if stamp == before or (before is not None and stamp[1] == 0):
            return False
        written = self._read()
        if self._stamp() != stamp:  # what was read may be half of it, or nothing: looked at again
            self._seen = before
            if before is None:
                raise Unavailable(f"Fake GPUs: {self._file}: it is just being written", file=str(self._file))
            return False
        self._build(parse(written, self._member, str(self._file)))
        return True

    def _read(self) -> str:
        try:
            return self._file.read_text(errors="replace")
        except FileNotFoundError:
            return ""  # it has just gone

    def changed(self) -> bool:
        """Whether the file is another one than `refresh` saw."""
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int]:
        try:
            status = self._file.stat()
        except OSError:
            return GONE
        return (status.st_mtime_ns, status.st_size)

    def _build(self, host: FakeHost) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(self._folder).f_flag & os.ST_NODEV:
            raise Invalid(
                f"Fake GPUs: {self._folder} is on a file system mounted nodev: no device file works there",
                folder=str(self._folder),
            )
        numbers = numbered(host.gpus, self._numbers())
        library = build(self._folder) if host.nvml else None
        wanted = tree(host.gpus, numbers, majors(majors_in_use(HostRoot())), library, host.boot)
        if host.cdi:
            wanted |= specs(host.gpus, numbers)
        try:
            write(self.root.sys.parent, wanted, self._make_node)
        except PermissionError as denied:
            raise Unsupported(f"Fake GPUs: cannot make device files: {denied.strerror}") from denied
        (self._folder / NUMBERS).write_bytes(msgspec.json.encode(numbers))

    def _numbers(self) -> dict[str, Numbers]:
        """Of the cards there were; nothing if that is not known, which only renumbers them."""
        try:
            written = (self._folder / NUMBERS).read_bytes()
            return msgspec.json.decode(written, type=dict[str, Numbers])
        except (OSError, msgspec.DecodeError):
            return {}
