"""Members of two versions side by side, until the last one has been updated; and no way back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster as package
from integration.harness import eventually, lxc, lxc_json, running
from lxdpy.dev.members import Cluster, Member, NotReady

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
HERE = Path(package.__file__).parent.parent
OUTDATED = ("Blocked", "Needs updating to newer version")
FINE = ("Online", "Fully operational")


@pytest.fixture
def apart() -> Iterator[Cluster]:
    with running(members=3, gpus=0) as made:
        yield made


def newer(folder: Path) -> Path:
    """This version, as if it had learnt something more."""
    for name in ("cluster", "lxdpy"):
        shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("features.*.pyc"))
    file = folder / "cluster/membership/features.py"
    text = file.read_text()
    assert "FEATURES = 1 " in text
    file.write_text(text.replace("FEATURES = 1 ", "FEATURES = 2 "))
    return folder


def shown(member: Member) -> dict[str, tuple[str, str]]:
    rows = lxc_json(member, "cluster", "list")
    return {row["server_name"]: (row["status"], row["message"]) for row in rows}


def test_members_are_updated_one_by_one(apart: Cluster) -> None:
    first, second, third = apart.members
    new = str(newer(apart.state / "newer"))
    second.stop()
    second.start(PYTHONPATH=new)
    expected = {"n1": OUTDATED, "n2": FINE, "n3": OUTDATED}
    eventually(lambda: all(shown(member) == expected for member in apart.members), within=20)
    for number, member in enumerate(apart.members):
        lxc(member, "profile", "create", f"mixed{number}")
    for member in (third, first):
        member.stop()
        member.start(PYTHONPATH=new)
    eventually(lambda: shown(second) == dict.fromkeys(("n1", "n2", "n3"), FINE), within=20)
    eventually(lambda: "feature level 2" in "".join(m.tail(400) for m in apart.members), within=20)
    lxc(third, "profile", "create", "after")  # what came before it in the log is known to the third now
    third.stop()
    with pytest.raises(NotReady, match="feature level 2, this version has 1: update this member"):
        third.start()
    assert {"mixed0", "mixed1", "mixed2"} <= {row["name"] for row in lxc_json(first, "profile", "list")}
