"""The stock client's commands for what is not an instance, through members of a cluster."""

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    ("noun", "path", "words", "shared"),
    [
        ("network", "networks", ("br7",), ("ipv4.address=10.157.0.1/24", "ipv6.address=none")),
        ("storage", "storage-pools", ("p7", "dir"), ()),
    ],
)
def test_what_every_member_has_a_part_of_is_made_and_goes_on_all(
    cluster: Cluster, noun: str, path: str, words: tuple[str, ...], shared: tuple[str, ...]
) -> None:
    first, second, third = cluster.members
    for member in cluster.members:
        lxc(second, noun, "create", *words, "--target", member.name)
    lxc(third, noun, "create", *words, *shared)

    def is_made() -> bool:
        row = first.ask("GET", f"/1.0/{path}/{words[0]}")
        return (row["status"], row["locations"]) == ("Created", ["n1", "n2", "n3"])

    eventually(is_made, within=30)
    lxc(first, noun, "delete", words[0])
    folders = [member.folder / "storage-pools" / words[0] for member in cluster.members]
    eventually(lambda: not [folder for folder in folders if folder.exists()], within=30)
    eventually(lambda: lxc_try(second, noun, "show", words[0]).status == 1, within=30)


def test_a_hosts_own_interfaces_are_listed(cluster: Cluster) -> None:
    shown = {row["name"]: row["managed"] for row in lxc_json(cluster.members[0], "network", "list")}
    assert (shown["eth0"], shown["lxdbr0"]) == (False, True)
    assert not [name for name in shown if name.startswith("veth")]


def test_a_network_that_went_while_a_member_was_down_goes_there_too(cluster: Cluster) -> None:
    first, _, third = cluster.members
    for member in cluster.members:
        lxc(first, "network", "create", "br8", "--target", member.name)
    lxc(first, "network", "create", "br8", "ipv4.address=10.158.0.1/24", "ipv6.address=none")
    third.kill()
    try:
        lxc(first, "network", "delete", "br8")
        assert "br8" in links(third)
    finally:
        third.start()
    folder = third.folder / "networks" / "br8"  # the last of it to go
    eventually(lambda: not folder.exists(), within=30)
    assert "br8" not in links(third)
    assert "lxdbr0" in links(third)


def links(member: Member) -> set[str]:
    shown = run(*member.net.enter(member.name, "ip", "-o", "link", "show", "type", "bridge"))
    return {line.split(":")[1].strip() for line in shown.splitlines()}
