import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from lxdpy.cli import server as verbs
from lxdpy.cli.main import cli
from tests.lxdpy.cli.server import Cli, Refusal, listening


def test_ready_is_waited_for(lxdpy: Cli) -> None:
    started = time.monotonic()
    lxdpy.server.answers["GET /internal/ready"] = lambda _: (
        {} if time.monotonic() > started + 0.3 else Refusal(503, "LXD daemon setup in progress")
    )
    lxdpy.ok("waitready", "--timeout", "10")
    assert time.monotonic() > started + 0.3


def test_waiting_ends_after_the_timeout_with_the_last_reason(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /internal/ready"] = Refusal(503, "LXD daemon setup in progress")
    said = lxdpy.fails("waitready", "--timeout", "0.2")
    assert said == "Error: The daemon is not ready after 0.2 s: LXD daemon setup in progress"


def test_waiting_begins_before_there_is_a_socket(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /internal/ready"] = {}
    results = []
    waiting = threading.Thread(target=lambda: results.append(CliRunner().invoke(cli, ["waitready"])))
    waiting.start()
    time.sleep(0.2)
    with listening(lxdpy.socket, lxdpy.server):
        waiting.join(10)
    assert [result.exit_code for result in results] == [0]


def test_shutdown_waits_until_nobody_listens(lxdpy: Cli) -> None:
    gone: list[bool] = []
    with listening(lxdpy.socket, lxdpy.server) as stop:

        def end(_: object) -> None:
            def leave() -> None:
                gone.append(True)
                stop()

            threading.Timer(0.3, leave).start()

        lxdpy.server.answers["PUT /internal/shutdown"] = end
        result = CliRunner().invoke(cli, ["shutdown", "--timeout", "10"])
    assert (result.exit_code, gone) == (0, [True])


def test_shutdown_gives_up_after_the_timeout(lxdpy: Cli) -> None:
    assert lxdpy.fails("shutdown", "--timeout", "0.2") == "Error: The daemon still runs after 0.2 s"


def test_shutdown_waits_for_the_process_not_only_for_its_socket(lxdpy: Cli) -> None:
    script = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lxdpy.socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        handle = verbs.process_behind(lxdpy.socket)
        assert handle is not None
        lxdpy.socket.unlink()
        assert verbs.is_there(lxdpy.socket, handle)
        child.stdin.close()
        child.wait(10)
        assert not verbs.is_there(lxdpy.socket, handle)
        os.close(handle)


def test_nobody_behind_the_socket_is_no_process(lxdpy: Cli) -> None:
    assert verbs.process_behind(lxdpy.socket) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(lxdpy.socket))
    assert verbs.process_behind(lxdpy.socket) is None
    assert not verbs.is_there(lxdpy.socket, None)


@pytest.mark.parametrize("words", [["-h"], ["cluster", "-h"], ["gpu", "-h"], ["image", "build", "-h"]])
def test_every_verb_has_a_sentence_of_help(words: list[str]) -> None:
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0
    assert "." in shown.stdout
