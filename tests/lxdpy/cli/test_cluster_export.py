"""lxdpy cluster export, import: all rows, as text that people can read and change."""

import os
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cluster.membership import identity as identities
from cluster.membership.model import MEMBERS
from cluster.state.machine import digest
from cluster.state.txn import State
from lxdpy.cli.main import cli
from lxdpy.cli.stopped import look
from lxdpy.host.lock import only_one
from lxdpy.resources.server.commands import ConfigureServer
from tests.lxdpy.cli.stopped_members import IDS, address, commands, left_behind

LOG = [
    *commands(["n1", "n2"]),
    ConfigureServer({"core.trust_password": "yes: 1"}, IDS["n1"], {"core.https_address": address("n1")}),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return left_behind(tmp_path / "old", "n1", LOG)


def run(at: Path, *words: object, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["cluster", *map(str, words)], input=stdin, env={"LXD_DIR": str(at)})


@pytest.fixture
def written(root: Path, tmp_path: Path) -> Path:
    target = tmp_path / "state.yaml"
    assert run(root, "export", target).exit_code == 0
    return target


def others(state: State) -> State:
    """Without the member whose certificate is another one's now."""
    rows = {key: row for key, row in state.rows(MEMBERS).items() if key != IDS["n1"]}
    return State(0, {**state.tables, MEMBERS.name: rows})


def test_what_was_exported_is_there_after_the_import(root: Path, written: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "new", "import", written, "--yes")
    assert done.exit_code == 0, done.output
    old, new = look(root), look(tmp_path / "new")
    assert digest(others(new.state)) == digest(others(old.state))
    mine = new.state.get(MEMBERS, IDS["n1"])
    assert (mine.name, mine.address) == ("n1", address("n1"))
    assert mine.certificate == (tmp_path / "new/server.crt").read_text()
    assert new.findings.voters == [IDS["n1"]]
    assert new.findings.identity.cluster_id != old.findings.identity.cluster_id
    assert (new.identity.listen, new.identity.certificate) == (address("n1"), "cluster pem\nof two lines\n")
    assert new.findings.newness >= old.findings.newness


def test_people_can_read_it_and_nobody_else(written: Path) -> None:
    text = written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert "certificate: |\n        cluster pem\n        of two lines\n" in text
    assert yaml.safe_load(text)["tables"]["settings"]["core.trust_password"] == {"value": "yes: 1"}


def test_it_can_be_taken_over_as_another_member_at_another_address(written: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "new", "import", written, "--as", "n2", "--address", "10.9.9.9", "--yes")
    assert done.exit_code == 0, done.output
    new = look(tmp_path / "new")
    assert (new.name, new.address(IDS["n2"])) == ("n2", "10.9.9.9:8443")
    assert new.address(IDS["n1"]) == address("n1")


def test_the_address_moves_with_what_listens_there(written: Path, tmp_path: Path) -> None:
    run(tmp_path / "new", "import", written, "--address", "10.9.9.9:1", "--yes")
    assert look(tmp_path / "new").identity.listen == "10.9.9.9:1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("level: 1", "level: 99", "of feature level 99"),
        ("level: 1", "level: one", "Not what `lxdpy cluster export` writes"),
        ("tables:", "tables: [", "Not what `lxdpy cluster export` writes"),
        ("  members:", "  memberz:", "No such table: memberz"),
        (
            "status: ready",
            "status: asleep",
            "members, 111111111111: Invalid enum value 'asleep'",
        ),
        ("status: ready", "colour: red", "unknown field `colour`"),
        ("member: n1", "member: n7", "No member 'n7' in the state: --as one of n1, n2"),
    ],
)
def test_a_bad_file_changes_nothing(written: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    written.write_text(written.read_text().replace(old, new, 1))
    done = run(tmp_path / "new", "import", written, "--yes")
    assert done.exit_code == 1
    assert said in done.output
    assert not (tmp_path / "new/cluster").exists()


def test_a_server_that_has_something_keeps_it(root: Path, written: Path, tmp_path: Path) -> None:
    assert "has a cluster of its own" in run(root, "import", written, "--yes").output
    assert look(root).name == "n1"
    lock = only_one(root)
    try:
        assert "A daemon runs" in run(root, "import", written, "--yes").output
        assert "A daemon runs" in run(root, "export").output
    finally:
        os.close(lock)


def test_an_import_that_was_cut_short_is_done_again(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(identities, "save", crash)
        assert run(tmp_path / "new", "import", written, "--yes").exit_code == 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        assert run(tmp_path / "new", "import", written, "--yes").exit_code == 1
    assert run(tmp_path / "new", "import", written, "--yes").exit_code == 0
    assert look(tmp_path / "new").name == "n1"
