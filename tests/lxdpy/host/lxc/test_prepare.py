import signal
from pathlib import Path

import pytest

from lxdpy.host.lxc.prepare import clean, errors_of, halt_signal, read_pid
from lxdpy.host.paths import InstancePaths

LOG = """\
lxc-start c1 2026112309194.762 WARN     conf - ../conf.c:lxc_map_ids:3628 - no newuidmap
lxc-start c1 2026112309194.765 ERROR    start - ../start.c:start:2200 - No such file - Failed to exec "/x"
lxc-start c1 2026112309194.766 ERROR    sync - ../src/lxc/sync.c:sync_wait:34 - Child process exited
lxc c1 20261123091904.767 ERROR    lxccontainer - ../l.c:wait:878 - Received container state "ABORTING"
lxc c1 20261123091904.768 ERROR    start - ../src/lxc/start.c:__lxc_start:2107 - Failed to spawn
"""


def test_the_first_errors_of_a_log_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    assert errors_of(tmp_path / "log") == (
        'No such file - Failed to exec "/x"; Child process exited; Received container state "ABORTING"'
    )
    assert errors_of(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("line", "number"),
    [("SIGRTMIN+3", 0), ("SIGTERM", signal.SIGTERM), ("TERM", signal.SIGTERM), ("12", 12), ("", 0)],
)
def test_the_signal_to_halt_may_be_configured(tmp_path: Path, line: str, number: int) -> None:
    (tmp_path / "lxc.conf").write_text(f"lxc.arch = linux64\nlxc.signal.halt = {line}\n")
    assert halt_signal(tmp_path / "lxc.conf") == number


def test_a_pid_file_that_is_not_there_or_half_written_is_no_pid(tmp_path: Path) -> None:
    assert read_pid(tmp_path / "none") == 0
    (tmp_path / "empty").touch()
    assert read_pid(tmp_path / "empty") == 0
    (tmp_path / "full").write_text("42\n")
    assert read_pid(tmp_path / "full") == 42


def test_cleaning_spares_what_device_drivers_keep(tmp_path: Path) -> None:
    paths = InstancePaths(tmp_path, "c1")
    paths.run.mkdir(parents=True)
    paths.pid_file.touch()
    (paths.devices / "disk.data").mkdir(parents=True)
    (paths.devices / "unix.dev-gpu").touch()
    (paths.devices / "uevent.unix.dev-gpu").touch()
    for _ in range(2):
        clean(paths)
    assert not paths.run.exists()
    assert [*paths.devices.iterdir()] == [paths.devices / "disk.data"]
