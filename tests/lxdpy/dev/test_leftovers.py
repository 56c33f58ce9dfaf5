import os
import subprocess
import sys
from pathlib import Path

import pytest

from lxdpy.dev import leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess; p = subprocess.Popen({SLEEP!r}); print(p.pid, flush=True); p.wait()",
]


def test_a_process_is_known_by_its_start() -> None:
    child = subprocess.Popen(SLEEP)
    assert leftovers.started(child.pid)
    assert leftovers.started(child.pid) == leftovers.started(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert leftovers.started(child.pid) == "", "a zombie counts as gone"
    child.wait()
    assert leftovers.started(child.pid) == ""


def test_children_are_ended_with_their_parent() -> None:
    with subprocess.Popen(PARENT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        leftovers.end(lambda: [pid for pid in (parent.pid, child) if leftovers.started(pid)])
    assert leftovers.started(child) == ""


def test_the_one_who_ends_others_is_spared() -> None:
    assert os.getpid() not in leftovers._below({os.getpid()})


def test_empty_groups_go_and_those_in_use_stay(tmp_path: Path) -> None:
    """Plain folders stand in: rmdir refuses a group with processes as it refuses a folder with a file."""
    (tmp_path / "lxdpy/a/payload/c1/ns").mkdir(parents=True)
    (tmp_path / "lxdpy/b/payload/c1").mkdir(parents=True)
    (tmp_path / "lxdpy/b/payload/c1/busy").touch()
    leftovers.remove_groups([tmp_path / "lxdpy"])
    assert not (tmp_path / "lxdpy/a").exists()
    assert (tmp_path / "lxdpy/b/payload/c1/busy").exists()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("/lxdpy.1234/payload/c1/ns", "lxdpy.1234"),
        ("/machine/lxdpy.1234/payload/c1", "machine/lxdpy.1234"),
        ("/lxc.payload.c1/ns", "lxc.payload.c1"),
        ("/user.slice", None),
    ],
)
def test_the_group_of_a_daemon_is_found(
    line: str, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "CGROUPS", tmp_path)
    (tmp_path / "memory" / line.lstrip("/")).mkdir(parents=True)
    found = [str(group.relative_to(tmp_path / "memory")) for group in leftovers._ours("memory", line)]
    assert found == ([wanted] if wanted else [])


def test_the_groups_of_another_daemon_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "CGROUPS", tmp_path)
    for daemon in ("1234", "5678"):
        (tmp_path / f"memory/lxdpy.{daemon}/payload/c1").mkdir(parents=True)
    leftovers.remove_groups(leftovers.groups_of("1234"))
    assert not (tmp_path / "memory/lxdpy.1234").exists()
    assert (tmp_path / "memory/lxdpy.5678/payload/c1").exists()
    leftovers.remove_groups(leftovers.groups_of("5678"))
    assert list((tmp_path / "memory").iterdir()) == []
