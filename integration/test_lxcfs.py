"""lxcfs may die; what it leaves behind keeps no container from starting."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import eventually
from lxdpy.host import lxcfs

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A mounted lxcfs of the test's own, and its pid."""
    folder = tmp_path / "lxcfs"
    folder.mkdir()
    words = ["lxcfs", "--foreground", "--pidfile", str(tmp_path / "pid"), str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually((folder / "proc" / "meminfo").exists, within=20)
        yield folder, process.pid
        process.kill()
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_living_one_is_found_and_a_dead_one_is_done_without(served: tuple[Path, int]) -> None:
    folder, pid = served
    nowhere = folder.parent / "nowhere"
    assert lxcfs.folder([nowhere, folder]) == str(folder)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert lxcfs.folder([nowhere, folder]) == ""
    assert str(folder) in Path("/proc/self/mounts").read_text(), "its mount is still there"
