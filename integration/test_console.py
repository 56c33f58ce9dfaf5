"""Consoles, with the stock client on a terminal of its own; through a member that has not the instance."""

from collections.abc import Iterator

import pytest

from integration.harness import eventually, lxc, lxc_try
from integration.instances import clear, instance
from integration.screen import Screen
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

HINT = "To detach from the console, press: <ctrl>+a q"


@pytest.fixture(scope="module", autouse=True)
def made(cluster: Cluster) -> Iterator[None]:
    owner = cluster.members[0]
    lxc(owner, "launch", "busybox", "c1", "--target", owner.name)
    yield
    clear(owner)


def test_a_shell_on_the_console_has_the_clients_size_and_can_be_left(cluster: Cluster) -> None:
    via = cluster.members[1]
    with Screen(via, "console", "c1") as screen:
        screen.until(HINT)
        screen.type("\r")
        screen.until("# ")
        screen.type("echo $((6*7)); stty size\r")
        screen.until("42\r\n")
        screen.until("31 97\r\n")
        screen.resize(50, 120)
        eventually(lambda: asked_size(screen) == "50 120", within=60)
        assert screen.detach() == 0
    assert instance(via, "c1")["status"] == "Running"
    with Screen(via, "console", "c1") as again:
        again.until(HINT)
        again.type("exit\r")
        again.until("Please press Enter")


def asked_size(screen: Screen) -> str:
    screen.type("stty size\r")
    screen.until("stty size\r\n")
    return screen.until("\r\n").strip()


def test_who_looks_at_the_same_console_shares_it(cluster: Cluster) -> None:
    one, two, _ = cluster.members
    with Screen(one, "console", "c1") as first, Screen(two, "console", "c1") as second:
        for screen in (first, second):
            screen.until(HINT)
        eventually(lambda: viewers(one, "c1") == 2, within=60)
        first.type("\r")
        for screen in (first, second):
            screen.until("# ")
        second.type("echo from $((1+1)); exit\r")
        for screen in (first, second):
            screen.until("from 2\r\n")
        assert first.detach() == 0
        second.until("Please press Enter")
        second.type("\r")
        second.until("# ")
        second.type("exit\r")
        second.until("Please press Enter")


def viewers(member: Member, name: str) -> int:
    found = member.ask("GET", "/1.0/operations?recursion=1").get("running", [])
    sessions = [one for one in found if one["description"] == "Showing console"]
    return sum(f"/1.0/instances/{name}" in one["resources"]["instances"] for one in sessions)


def test_the_log_has_what_was_shown_until_it_is_cleared(cluster: Cluster) -> None:
    owner, via, _ = cluster.members
    lxc(via, "exec", "c1", "--", "sh", "-c", "echo to the console >/dev/console")
    eventually(lambda: "to the console" in lxc(via, "console", "c1", "--show-log"), within=60)
    via.ask("DELETE", "/1.0/instances/c1/console")
    assert "to the console" not in lxc(owner, "console", "c1", "--show-log")
    lxc(via, "exec", "c1", "--", "sh", "-c", "echo once more >/dev/console")
    eventually(lambda: "once more" in lxc(via, "console", "c1", "--show-log"), within=60)
    log = owner.folder / "logs" / "c1" / "console.log"
    assert log.read_bytes()[:1] != b"\0", "written behind a hole"


def test_a_start_can_be_watched_and_a_stop_ends_the_session(cluster: Cluster) -> None:
    owner, via, _ = cluster.members
    lxc(owner, "init", "busybox", "c2", "--target", owner.name)
    with Screen(via, "start", "c2", "--console") as screen:
        screen.until(HINT)
        screen.type("\r")
        screen.until("# ")
        lxc(owner, "stop", "c2", "--force")
        assert screen.wait() == 0
    with Screen(via, "console", "c2") as refused:
        refused.until("Error: Instance is not running")
        assert refused.wait() == 1


def test_sessions_end_with_the_daemon_and_consoles_are_free_again(cluster: Cluster) -> None:
    owner = cluster.members[0]
    with Screen(owner, "console", "c1") as screen:
        screen.until(HINT)
        eventually(lambda: viewers(owner, "c1") == 1, within=60)
        owner.kill()
        screen.wait()
    owner.start()
    with Screen(owner, "console", "c1") as screen:
        screen.until(HINT)
        screen.type("\r")
        screen.until("# ")
        screen.type("exit\r")
        screen.until("Please press Enter")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--type", "vga"), "VGA console is only supported by virtual machines"),
        (("--type", "serial"), 'Unknown output type "serial"'),
    ],
)
def test_other_types_are_refused(cluster: Cluster, words: tuple[str, ...], why: str) -> None:
    refused = lxc_try(cluster.members[1], "console", "c1", *words)
    assert refused.err.strip() == f"Error: {why}"
    assert refused.status == 1
