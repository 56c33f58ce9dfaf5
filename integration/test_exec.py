"""Programs in instances, with the stock client; through a member that has not the instance."""

import asyncio
import contextlib
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.harness import LXC, Done, eventually, lxc, lxc_try
from integration.instances import clear, sh
from integration.screen import Screen
from lxdpy.dev.api import Connection, Refused
from lxdpy.dev.bench.crowd import CONSOLE, PROGRAM, crowd
from lxdpy.dev.bench.load import rate
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MANY = 24  # programs at once; each costs the stock client's own start too
ATTACHED, VIEWERS, OPENING = 24, 6, 8  # clients that cost less; so many are opened at a time


@pytest.fixture(scope="module", autouse=True)
def made(cluster: Cluster) -> Iterator[None]:
    owner = cluster.members[0]
    lxc(owner, "launch", "busybox", "c1", "--target", owner.name, "-c", "environment.COLOUR=red")
    yield
    clear(owner)


@pytest.fixture
def via(cluster: Cluster) -> Member:
    return cluster.members[1]


def run(via: Member, *words: str, stdin: str = "") -> Done:
    return lxc_try(via, "exec", "c1", *words, stdin=stdin)


@pytest.mark.parametrize(
    ("words", "status", "err"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "exit 300"), 44, ""),
        (("sh", "-c", "kill -KILL $$"), 137, ""),
        (("sh", "-c", "kill -TERM $$"), 143, ""),
        (("nowhere",), 127, "Error: Command not found"),
        (("/etc/passwd",), 126, "Error: Command not executable"),
        (("/etc",), 126, "Error: Command not executable"),
    ],
)
def test_exit_statuses_are_lxds(via: Member, words: tuple[str, ...], status: int, err: str) -> None:
    done = run(via, "--", *words)
    assert (done.status, done.err.strip()) == (status, err)


def test_a_program_gets_who_where_and_what_it_was_given(via: Member) -> None:
    root = dict(line.split("=", 1) for line in run(via, "--", "env").out.splitlines())
    assert {"HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "COLOUR": "red"}.items() <= root.items()
    other = run(via, "--user=1000", "--group=50", "--cwd=/tmp", "--env=COLOUR=blue", "--", "sh", "-c",
                "id -u; id -g; id -G; pwd; echo $COLOUR ${HOME-none}")  # fmt: skip
    assert other.out.split() == ["1000", "50", "50", "/tmp", "blue", "none"]
    assert run(via, "--cwd=/nowhere", "--", "pwd").out == "/\n"
    nobody = run(via, "--user=5000000", "--", "true")
    assert (nobody.status, nobody.err.split("\n")[0]) == (
        126,
        "The instance has no user 5000000 or no group 0",
    )


def test_streams_are_kept_apart_and_whole(via: Member) -> None:
    done = run(via, "--", "sh", "-c", "cat; echo err >&2", stdin="in\n" * 100_000)
    assert done.out == "in\n" * 100_000
    assert done.err == "err\n"
    assert run(via, "-n", "--", "cat", stdin="unread").out == ""


def test_a_terminal_is_resized_and_interrupted(via: Member) -> None:
    with Screen(via, "exec", "c1", "--", "sh") as screen:
        screen.until("# ")
        screen.type("stty size\r")
        screen.until("31 97\r\n")
        screen.resize(50, 120)
        screen.type('until [ "$(stty size)" = "50 120" ]; do sleep 0.1; done; echo resized; sleep 100\r')
        screen.until("\nresized\r\n")
        eventually(lambda: "sleep 100" in sh(via, "c1", "ps"), within=30)  # a shell between two programs
        screen.type("\x03")
        screen.until("# ")
        screen.type("exit 5\r")
        assert screen.wait() == 5


def test_signals_of_the_client_reach_the_program_and_its_end_ends_it(via: Member) -> None:
    script = "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.1; done"
    with begun(via, "sh", "-c", script) as client:
        assert read(client) == "up\n"
        client.send_signal(signal.SIGTERM)
        assert read(client) == "told\n"
        assert client.wait(30) == 9
    with begun(via, "sh", "-c", "echo up; exec sleep 1234") as client:
        assert read(client) == "up\n"
    eventually(lambda: "sleep 1234" not in sh(via, "c1", "ps"), within=30)


@contextlib.contextmanager
def begun(via: Member, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """The client with a program that goes on; killed in the end."""
    via.take_turn()
    config = via.folder.parent / "lxc-config"
    client = subprocess.Popen(
        [LXC, "exec", "c1", "--", *words], env=via.environment | {"LXD_CONF": str(config), "HOME": "/tmp"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield client
    finally:
        client.kill()
        client.communicate()


def read(client: "subprocess.Popen[str]") -> str:
    assert client.stdout is not None
    return client.stdout.readline()


def test_what_a_program_said_is_whole_when_it_fails_as_one_that_cannot_start(via: Member) -> None:
    with begun(via, "sh", "-c", "yes | head -n 50000; exit 126") as client:
        assert client.stdout is not None
        assert select.select([client.stdout], [], [], 30)[0]
        time.sleep(0.3)  # the client waits for us, and its pipe is full
        assert len(client.stdout.read()) == 100_000
        assert client.wait(30) == 126


def test_output_without_a_client_is_kept_until_it_is_deleted(via: Member) -> None:
    body = {"command": ["sh", "-c", "echo out; echo err >&2; exit 5"], "record-output": True}
    done = via.ask("POST", "/1.0/instances/c1/exec", body)
    assert done["return"] == 5
    assert [raw(via, done["output"][fd]) for fd in ("1", "2")] == ["out\n", "err\n"]
    assert set(done["output"].values()) <= set(via.ask("GET", "/1.0/instances/c1/logs"))
    via.ask("DELETE", done["output"]["1"])
    assert done["output"]["1"] not in via.ask("GET", "/1.0/instances/c1/logs")
    with pytest.raises(Refused, match="Command not found"):
        via.ask("POST", "/1.0/instances/c1/exec", {"command": ["nowhere"], "record-output": True})
    assert via.ask("POST", "/1.0/instances/c1/exec", {"command": ["true"]}) == {"return": 0}


def raw(via: Member, path: str) -> str:
    with contextlib.closing(Connection(via.socket, 10)) as link:
        link.request("GET", path)
        return link.getresponse().read().decode()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"command": []}, "A command is needed"),
        ({"command": ["true"], "user": -1}, "user: -1 is not an id"),
        ({"command": ["a\0b"]}, "null bytes"),
        ({"command": ["true"], "width": 70_000}, "width of 70000"),
        ({"command": "true"}, "$.command"),
    ],
)
def test_what_cannot_be_run_is_refused(via: Member, body: dict[str, object], why: str) -> None:
    with pytest.raises(Refused) as refused:
        via.ask("POST", "/1.0/instances/c1/exec", body)
    assert why in str(refused.value)
    assert refused.value.status == 400


def test_many_at_once_all_get_their_own_answer(cluster: Cluster) -> None:
    def one(number: int) -> str:
        member = cluster.members[number % 3]
        return lxc(member, "exec", "c1", "--", "sh", "-c", f"echo {number}; cat", stdin="x")

    with ThreadPoolExecutor(MANY) as clients:
        assert list(clients.map(one, range(MANY))) == [f"{number}\nx" for number in range(MANY)]


def test_a_crowd_attached_to_programs_and_a_console_is_served_whole(cluster: Cluster, via: Member) -> None:
    async def go() -> None:
        async with crowd(via.socket) as clients, crowd(via.socket) as viewers:
            await rate(lambda _: clients.attach("/1.0/instances/c1/exec", PROGRAM), range(ATTACHED), OPENING)
            await rate(
                lambda _: viewers.attach("/1.0/instances/c1/console", CONSOLE), range(VIEWERS), OPENING
            )
            await clients.all_say(b"here\n")
            await clients.all_hear(b"here\n", "1")
            hearing = asyncio.create_task(viewers.all_hear(b"shown", "0"))
            while not hearing.done():  # viewers see what comes once they are there, which nobody is told
                await asyncio.to_thread(run, cluster.members[0], "--", "sh", "-c", "echo shown >/dev/console")
            await hearing
            await clients.end("0")
            await viewers.end("control")

    asyncio.run(go())


def test_clients_that_do_not_read_delay_nobody(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stalled:
        for number in range(6):
            stalled.enter_context(begun(cluster.members[number % 2], "yes"))
        time.sleep(1)
        for member in cluster.members:
            assert run(member, "--", "echo", "here").out == "here\n"
            assert member.ask("GET", "/1.0/instances")
