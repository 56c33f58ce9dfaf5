import pytest

from lxdpy.cli.recover import pool_of
from tests.lxdpy.cli.server import Cli

CHECK, IMPORT = "POST /internal/recover/validate", "POST /internal/recover/import"
FOUND = {"pool": "p1", "project": "lab", "type": "container", "name": "web", "snapshotCount": 3}


def answer(*missing: str) -> dict[str, object]:
    return {"unknownVolumes": [FOUND], "dependencyErrors": list(missing)}


def test_what_is_found_is_shown_and_registered(lxdpy: Cli) -> None:
    lxdpy.server.answers |= {CHECK: answer(), IMPORT: answer()}
    shown = lxdpy.ok("recover", "--yes", "--pool", "name=p1,driver=btrfs,source=/dev/sdb,size=9GiB")
    assert all(word in shown for word in ("p1", "lab", "container", "web", "3"))
    pool = {
        "name": "p1",
        "driver": "btrfs",
        "description": "",
        "config": {"source": "/dev/sdb", "size": "9GiB"},
    }
    assert [(one.path, one.body) for one in lxdpy.server.changes()] == [
        ("/internal/recover/validate", {"pools": [pool]}),
        ("/internal/recover/import", {"pools": [pool]}),
    ]


def test_nothing_is_registered_while_something_is_missing(lxdpy: Cli) -> None:
    lxdpy.server.answers[CHECK] = answer('Profile "x" in project "lab"')
    assert 'Profile "x" in project "lab"' in lxdpy.fails("recover", "--yes")
    assert [one.path for one in lxdpy.server.changes()] == ["/internal/recover/validate"]


@pytest.mark.parametrize("words", ["p1", "name=p1", "driver=dir", "name=p1,driver=dir,=x", ""])
def test_a_pool_that_is_not_told_right_is_refused(lxdpy: Cli, words: str) -> None:
    assert "--pool" in lxdpy.fails("recover", "--yes", "--pool", words)
    assert lxdpy.server.asked == []


def test_values_may_have_equals_signs() -> None:
    assert pool_of("name=a,driver=dir,source=/a=b").config == {"source": "/a=b"}
