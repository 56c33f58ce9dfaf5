"""A process whose wall clock is off, and whose other clocks are not."""

import subprocess
import sys
import time
from pathlib import Path

import lxdpy.dev.faults

CLOCK = Path(lxdpy.dev.faults.__file__).parent / "clock"
SCRIPT = "import time; print(time.time(), time.time_ns() / 1e9, time.monotonic())"


def clocks(folder: Path) -> list[float]:
    environment = {"PYTHONPATH": str(CLOCK), "LXD_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [float(word) for word in done.stdout.split()]


def test_the_wall_clock_is_off_by_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "n1.clock").write_text("-3600")
    began = time.time(), time.monotonic()
    wall, wall_ns, monotonic = clocks(tmp_path / "n1")
    assert began[0] - 3600 <= wall <= wall_ns <= time.time() - 3600
    assert began[1] <= monotonic <= time.monotonic()


def test_without_the_file_it_is_right(tmp_path: Path) -> None:
    before = time.time()
    wall, wall_ns, _ = clocks(tmp_path / "n1")
    assert before <= wall <= wall_ns <= time.time()
