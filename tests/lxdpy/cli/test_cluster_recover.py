"""lxdpy cluster recover, show, list-database, edit: on what stopped daemons have left."""

import os
import socket
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cluster.membership import identity as identities
from cluster.membership.commands import RenameMember
from cluster.membership.identity import load
from cluster.raft.journal import TAKE_OVER, identity_of
from cluster.raft.recover import inspect
from lxdpy.cli.main import cli
from lxdpy.host.lock import only_one
from tests.lxdpy.cli.stopped_members import CLUSTER, IDS, commands, left_behind

LOG = commands(["n1", "n2", "n3"])
Roots = dict[str, Path]


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """n2 has one entry more than the others, which it does not know to be committed."""
    more = [*LOG, RenameMember(IDS["n3"], "n9")]
    made = {
        "n1": left_behind(tmp_path / "one", "n1", LOG),
        "n2": left_behind(tmp_path / "two", "n2", more, committed=len(LOG) + 1),
        "n3": left_behind(tmp_path / "three", "n3", LOG[:-1]),
    }
    monkeypatch.setenv("LXD_DIR", str(made["n1"]))
    return made


def run(*words: object, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["cluster", *map(str, words)], input=stdin)


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_newest_of_the_given_goes_on_alone(roots: Roots) -> None:
    done = run("recover", roots["n2"], roots["n3"], "--yes")
    assert done.exit_code == 0, done.output
    found = inspect(roots["n2"] / "cluster/raft")
    identity = load(roots["n2"])
    assert identity is not None
    assert (found.voters, found.identity.member_id) == ([IDS["n2"]], IDS["n2"])
    assert found.identity.cluster_id == identity.cluster_id != CLUSTER
    assert identity.voters == (IDS["n2"],)
    assert identity_of(roots["n1"] / "cluster/raft/journal").cluster_id == CLUSTER


def test_it_says_what_it_sees_and_what_is_lost(roots: Roots) -> None:
    said = run("recover", roots["n2"], stdin="no\n").output
    assert f"│ {roots['n1']} │ n1     │ 3    │ 10 of term 2 │ >= 10     │ n1, n2, n3 │" in said
    assert f"n2 ({roots['n2']}) goes on alone, with entry 11 as its newest" in said
    assert "Entries 11 to 11 may never have been acknowledged" in said
    assert "Not looked at: n9." in said
    assert "n1, n9 must not run with the state they have" in said


def test_it_warns_when_another_member_seems_to_be_alive(roots: Roots) -> None:
    assert "CAREFUL" not in run("recover", stdin="no\n").output
    with socket.create_server(("127.0.7.3", 0)) as listening:
        there = f"127.0.7.3:{listening.getsockname()[1]}"
        run("edit", stdin=run("show").output.replace("127.0.7.3:9", there))
        said = run("recover", stdin="no\n").output
    assert f"CAREFUL: something answers at n3 ({there}). Is the majority really lost?" in said


def test_nothing_is_changed_unless_it_is_agreed_to(roots: Roots) -> None:
    before = files(roots["n1"])
    assert run("recover", stdin="no\n").exit_code == 1
    assert run("recover", stdin="").exit_code == 1
    after = files(roots["n1"])
    after.pop(roots["n1"] / "daemon.lock")
    assert after == before


def test_a_running_daemon_is_left_alone(roots: Roots) -> None:
    lock = only_one(roots["n2"])
    try:
        done = run("recover", roots["n2"], "--yes")
    finally:
        os.close(lock)
    assert f"Error: A daemon runs on {roots['n2']}" in done.output
    for root in roots.values():
        assert identity_of(root / "cluster/raft/journal").cluster_id == CLUSTER


def test_what_was_cut_short_is_finished_even_if_another_is_newer(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(identities, "save", crash)
        assert "no space" in run("recover", "--yes").output
    log = roots["n1"] / "cluster/raft"
    assert (log / TAKE_OVER).exists()
    begun = inspect(log).begun
    done = run("recover", roots["n2"], "--yes")
    assert "cut short" in done.output
    identity = load(roots["n1"])
    assert identity is not None
    assert begun is not None
    assert identity.cluster_id == begun.cluster_id == identity_of(log / "journal").cluster_id
    assert not (log / TAKE_OVER).exists()


def test_members_of_different_clusters_are_not_compared(roots: Roots) -> None:
    run("recover", "--yes")
    assert "different clusters" in run("recover", roots["n2"], "--yes").output


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("cluster/raft/journal", b"not a log", "the first frame is damaged"),
        ("cluster/raft/snapshot", b"not a snapshot", "not a snapshot"),
        ("cluster/identity.json", b"{}", "missing required field"),
    ],
)
def test_what_cannot_be_read_is_named(roots: Roots, file: str, content: bytes, said: str) -> None:
    (roots["n1"] / file).write_bytes(content)
    done = run("recover", "--yes")
    assert done.exit_code == 1
    assert said in done.output
    assert str(roots["n1"] / file) in done.output
    assert "Traceback" not in done.output


def test_an_empty_folder_is_no_member_s(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no state of a server" in run("recover", tmp_path / "empty", "--yes").output
    assert "is not the state directory" in run("recover", tmp_path / "none", "--yes").output


def test_show_prints_what_edit_takes(roots: Roots) -> None:
    shown = run("show").output
    assert shown.startswith("# n1 has entry 10 of term 2")
    rows = yaml.safe_load(shown)["members"]
    assert rows[1] == {"id": IDS["n2"], "name": "n2", "address": "127.0.7.2:9", "role": "voter"}
    assert "Nothing was changed" in run("edit", stdin=shown).output


def test_the_database_is_listed(roots: Roots) -> None:
    lines = [line for line in run("list-database").output.splitlines() if "127.0.7." in line]
    assert lines == [f"│ n{n}   │ 127.0.7.{n}:9 │" for n in (1, 2, 3)]


def test_moved_members_are_dialled_at_their_new_addresses(roots: Roots) -> None:
    text = run("show").output.replace("127.0.7.1:9", "10.1.0.1").replace("127.0.7.2:9", "10.1.0.2:8443")
    assert "n1: 127.0.7.1:9 -> 10.1.0.1:8443" in run("edit", stdin=text).output
    identity = load(roots["n1"])
    assert identity is not None
    assert (identity.listen, identity.cluster_listen) == ("10.1.0.1:8443", "10.1.0.1:8443")
    assert identity.addresses() == {
        IDS["n1"]: "10.1.0.1:8443", IDS["n2"]: "10.1.0.2:8443", IDS["n3"]: "127.0.7.3:9",
    }  # fmt: skip
    assert identity.moved == {IDS["n1"]: "10.1.0.1:8443", IDS["n2"]: "10.1.0.2:8443"}
    assert "10.1.0.2:8443" in run("show").output


def test_what_another_member_prints_is_taken_though_votes_have_moved_since(roots: Roots) -> None:
    text = run("show").output.replace("role: voter", "role: stand-by", 1).replace("127.0.7.3:9", "10.1.0.3")
    assert run("edit", stdin=text).output == "n3: 127.0.7.3:9 -> 10.1.0.3:8443\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: n2", "name: m2", "Only addresses can be changed here, not the name of n2"),
        ("127.0.7.2:9", "127.0.7.1:9", "Two members cannot have one address: 127.0.7.1:9"),
        ("127.0.7.2:9", "0.0.0.0:8443", "wildcard"),
        ("127.0.7.2:9", "10.0.0.2:99999", "Not a port"),
        (IDS["n2"], "999999999999", "neither added nor removed"),
        ("members:", "others:", "Not what `lxdpy cluster show` prints"),
        ("role: voter", "role: [", "Not what `lxdpy cluster show` prints"),
    ],
)
def test_a_bad_edit_changes_nothing(roots: Roots, old: str, new: str, said: str) -> None:
    text = run("show").output.replace(old, new)
    before = load(roots["n1"])
    assert said in run("edit", stdin=text).output
    assert load(roots["n1"]) == before
