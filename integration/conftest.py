"""Fixtures of the integration tests. One cluster serves a whole file, as starting one takes seconds."""

import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member

LINES = 25  # of each member's log, told with a test that failed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that may take longest first, so that in the end no worker waits for the other."""

    def patience(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark else 0.0

    longest: dict[str, float] = {}
    for item in items:
        file = str(item.path)
        longest[file] = max(longest.get(file, 0.0), patience(item))
    items.sort(key=lambda item: -longest[str(item.path)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the daemons said is told with the failure; only they know the cause of many."""
    report = yield
    if report.when == "call" and report.failed:
        for fixture in getattr(item, "funcargs", {}).values():
            members = fixture.members if isinstance(fixture, Cluster) else [fixture]
            for member in members:
                if isinstance(member, Member):
                    report.sections.append((f"end of {member.name}'s log", member.tail(LINES)))
    return report


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three joined members with two fake GPUs each, a `dir` pool, and the image `busybox`."""
    with harness.running(members=3, gpus=2) as made:
        first = made.members[0]
        busybox(first)
        # Who joined tells its GPUs some seconds later.
        harness.eventually(lambda: len(first.ask("GET", "/1.0/gpus")) == 6, within=20)
        yield made


@pytest.fixture(scope="module")
def pools(cluster: Cluster) -> Cluster:
    """With a btrfs pool `bt` beside the `dir` pool `default`."""
    first = cluster.members[0]
    for member in cluster.members:
        harness.lxc(first, "storage", "create", "bt", "btrfs", "size=256MiB", "--target", member.name)
    harness.lxc(first, "storage", "create", "bt", "btrfs")
    return cluster


@pytest.fixture
def root() -> Iterator[Path]:
    """A `$LXD_DIR` on a real disk, all of whose mounts are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lxdpy-storage-", dir="/var/lib"))
    folder.chmod(0o711)
    yield folder
    for target in sorted(mounts_below(folder), reverse=True):
        subprocess.run(["umount", target], check=True)
    shutil.rmtree(folder)


def mounts_below(folder: Path) -> list[str]:
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [target for target in targets if target.startswith(f"{folder}/")]
