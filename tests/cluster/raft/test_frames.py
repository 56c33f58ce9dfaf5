"""Frames on disk: what was torn is dropped, what is damaged is refused, what was synced stays."""

import errno
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from queue import Queue

import pytest

from cluster.failpoints import inject
from cluster.raft.background import SYNC_EVERY, in_thread
from cluster.raft.frames import Damaged, FrameFile
from tests.cluster.raft.simulator import Crash

FRAMES = [b"first", b"second", b"third"]


def written(path: Path) -> bytes:
    file = FrameFile(path)
    file.replace([FRAMES[0]])
    for payload in FRAMES[1:]:
        file.append(payload)
    file.close()
    return path.read_bytes()[: file.size]


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    written(tmp_path / "log")
    assert FrameFile(tmp_path / "log").load() == FRAMES


def test_every_cut_leaves_an_exact_prefix(tmp_path: Path) -> None:
    path = tmp_path / "log"
    content = written(path)
    seen = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            payloads = FrameFile(path).load()
        except Damaged:
            payloads = []
        assert payloads == FRAMES[: len(payloads)]
        seen.add(len(payloads))
    assert seen == {0, 1, 2}


def test_no_flipped_byte_is_believed(tmp_path: Path) -> None:
    """In the last frame it looks like a torn write, so that one is dropped; elsewhere the file is refused."""
    path = tmp_path / "log"
    content = written(path)
    refused = dropped = 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0x40
        path.write_bytes(bytes(flipped))
        try:
            payloads = FrameFile(path).load()
        except Damaged:
            refused += 1
            continue
        assert payloads == FRAMES[:2]
        dropped += 1
    assert dropped == 20 + len(FRAMES[2])
    assert refused == len(content) - dropped


def test_a_frame_torn_in_the_middle_of_allocated_space_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    content = written(path)
    path.write_bytes(content[:-3] + bytes(4096))
    assert FrameFile(path).load() == FRAMES[:2]


def test_a_crash_while_the_file_is_replaced_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path)
    file = FrameFile(path)
    file.load()
    with inject("journal.rename", Crash()), pytest.raises(Crash):
        file.replace([b"new"])
    file.close()
    assert FrameFile(path).load() == FRAMES


def test_what_was_read_is_written_again_with_higher_numbers(tmp_path: Path) -> None:
    """A frame of the old file that shows up behind the new ones must not be taken for their successor."""
    path = tmp_path / "log"
    old = written(path)
    file = FrameFile(path)
    file.load()
    file.replace([b"new"])
    file.close()
    path.write_bytes(path.read_bytes()[: file.size] + old)
    assert FrameFile(path).load() == [b"new"]


def test_a_full_disk_is_an_error_at_the_write_that_hits_it(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "log")
    file.replace([b"first"])
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with inject("journal.write", full), pytest.raises(OSError, match="No space"):
        file.append(b"lost")
    file.close()
    assert FrameFile(tmp_path / "log").load() == [b"first"]


def test_space_is_allocated_before_it_is_written(tmp_path: Path) -> None:
    """A sparse file would fail, or kill the process, at any later write."""
    file = FrameFile(tmp_path / "log")
    file.replace([b"first"])
    status = (tmp_path / "log").stat()
    file.close()
    assert status.st_blocks * 512 >= status.st_size >= 4 << 20


def test_every_append_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    file = FrameFile(tmp_path / "log")
    file.replace([b"first"])
    file.append(b"second")
    assert synced == [(tmp_path / "log").stat().st_ino] * 2
    file.close()


def test_a_large_file_is_synced_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever syncs a line meanwhile waits for all of it."""
    file, sizes = FrameFile(tmp_path / "log"), [0]
    monkeypatch.setattr("os.fdatasync", lambda _: sizes.append(file.size))
    file.create([bytes(400 << 10)] * 10)
    assert sizes[-1] == file.size > 10 * 400 << 10
    assert max(after - before for before, after in pairwise(sizes)) < SYNC_EVERY + (500 << 10)
    file.close()


def test_a_file_that_was_replaced_is_let_go_by_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That frees its blocks, which takes the longer the larger it was."""
    path = tmp_path / "log"
    file = FrameFile(path)
    file.replace([b"first"])
    assert closer_of(path, monkeypatch, lambda: file.replace([b"second"])) is not threading.current_thread()
    file.close()


def closer_of(path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> threading.Thread:
    """Who closed during `work` the file that had the name before."""
    watched, close = path.stat().st_ino, os.close
    closers: Queue[threading.Thread] = Queue()

    def note(fd: int) -> None:
        if os.fstat(fd).st_ino == watched:
            closers.put(threading.current_thread())
        close(fd)

    with monkeypatch.context() as patch:
        patch.setattr("os.close", note)
        work()
        return closers.get(timeout=30)


def test_what_is_appended_while_the_file_is_rewritten_is_in_both(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path)
    file = FrameFile(path)
    file.load()
    file.replace([b"all"])
    file.rewrite([b"less"], in_thread)
    file.append(b"more")
    assert FrameFile(path).load() == [b"all", b"more"]
    while file.is_rewriting:
        file.settle()
    file.append(b"last")
    file.close()
    assert FrameFile(path).load() == [b"less", b"more", b"last"]


def test_a_file_that_is_closed_while_it_is_rewritten_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = FrameFile(path)
    file.replace([b"all"])
    before = len(os.listdir("/proc/self/fd"))
    file.rewrite([b"less"], in_thread)
    file.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert FrameFile(path).load() == [b"all"]
