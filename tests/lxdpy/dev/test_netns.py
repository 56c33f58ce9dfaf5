from pathlib import Path

from lxdpy.dev.members import Cluster
from lxdpy.dev.netns import SWITCH, Net

NET = Net("t", ("n1", "n2"))


def test_names_and_addresses_follow_from_tag_and_member() -> None:
    assert NET.namespace("n1") == "lxdpy-t-n1"
    assert [NET.address(name) for name in ("n1", "n2", SWITCH)] == [
        "10.155.0.1",
        "10.155.0.2",
        "10.155.0.254",
    ]


def test_two_clusters_share_no_name() -> None:
    other = Net("u", NET.members)
    assert not {NET.namespace(name) for name in NET.members} & {other.namespace(name) for name in NET.members}
    assert NET.pin("n1") != other.pin("n1")


def test_a_command_enters_both_namespaces_and_keeps_its_words() -> None:
    words = NET.enter("n1", "sh", "-c", "a b")
    assert words[-3:] == ["sh", "-c", "a b"]
    assert "--net=/run/netns/lxdpy-t-n1" in words
    assert "--mount=/run/lxdpy-dev/t/n1" in words


def test_a_member_runs_with_nothing_inherited(tmp_path: Path) -> None:
    member = Cluster("t", tmp_path, 1).members[0]
    assert member.environment.keys() == {"PATH", "LANG", "HOME", "LXD_DIR"}
    assert member.pid() is None


def test_the_pid_of_another_process_is_not_the_daemons(tmp_path: Path) -> None:
    member = Cluster("t", tmp_path, 1).members[0]
    (tmp_path / "n1.pid").write_text("1 0")
    assert member.pid() is None
