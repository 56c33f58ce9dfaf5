import os
import subprocess
import sys

from lxdpy.dev.bench.daemons import children, consumed, resident

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]


def test_children_and_their_memory_are_found() -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert child.pid in children(os.getpid())
        assert 2 < resident(child.pid) < 200, "an interpreter has a few MiB"
        child.kill()
    assert child.pid not in children(os.getpid())


def test_what_has_ended_has_nothing() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert (children(child.pid), resident(child.pid), consumed(child.pid)) == ([], 0, 0)


def test_processor_time_includes_children_that_ended() -> None:
    before = consumed(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert consumed(os.getpid()) > before
