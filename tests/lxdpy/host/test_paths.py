from pathlib import Path

import pytest

from lxdpy.host.paths import InstancePaths, container_name, lxd_dir


def test_only_other_projects_show_in_the_name() -> None:
    assert container_name("default", "c1") == "c1"
    assert container_name("lab", "c1") == "lab_c1"


def test_the_environment_moves_the_state_and_it_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LXD_DIR", raising=False)
    assert lxd_dir() == Path("/var/lib/lxdpy")
    monkeypatch.setenv("LXD_DIR", "here/../there")
    assert lxd_dir() == Path.cwd() / "there"


def test_logs_lie_where_lxd_puts_them() -> None:
    paths = InstancePaths(Path("/var/lib/lxdpy"), "lab_c1")
    assert paths.config == Path("/var/lib/lxdpy/logs/lab_c1/lxc.conf")
    assert paths.console == Path("/var/lib/lxdpy/logs/lab_c1/console.log")
    assert paths.run.parent == Path("/var/lib/lxdpy/run")
