"""What is done to files is what a fault leaves, and no more."""

from pathlib import Path

import pytest

from cluster.raft.frames import FrameFile
from lxdpy.dev.faults.within import frames_end, tear


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three frames, and room behind them, as a killed daemon leaves it."""
    (tmp_path / "raft").mkdir()
    path = tmp_path / "raft" / "journal"
    file = FrameFile(path)
    file.replace([b"first"])
    for payload in (b"second" * 100, b"third"):
        file.append(payload)
    file.close()
    return path


def test_the_end_of_the_last_frame_is_found(journal: Path) -> None:
    content = journal.read_bytes()
    end, last = frames_end(content)
    assert last == 3
    assert content[:end].endswith(b"third")
    assert not content[end:].strip(b"\0")


@pytest.mark.parametrize("seed", [str(number) for number in range(30)])
def test_a_torn_tail_takes_no_frame_and_adds_none(seed: str, journal: Path) -> None:
    before = journal.read_bytes()
    tear(journal.parent.parent, seed)
    assert FrameFile(journal).load() == [b"first", b"second" * 100, b"third"]
    end, _ = frames_end(before)
    assert journal.read_bytes()[:end] == before[:end]


def test_most_torn_tails_differ_from_an_untorn_one(journal: Path) -> None:
    before = journal.read_bytes()
    torn = 0
    for seed in range(20):
        tear(journal.parent.parent, str(seed))
        torn += journal.read_bytes() != before
        journal.write_bytes(before)
    assert torn >= 15
