"""Snapshots on disk: whole or refused, and never replaced by something that is not."""

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.raft import snapshot
from cluster.raft.background import SYNC_EVERY
from cluster.raft.codec import NO_OP
from cluster.raft.frames import Damaged
from cluster.raft.snapshot import Header
from tests.cluster.raft.test_frames import closer_of

HEADER = Header((b"\0last", 7, 3), (NO_OP, 6, 2), ["a", "b"])
CHUNKS = [b"one", b"two" * 100, b""]


def written(path: Path) -> bytes:
    snapshot.write(path, HEADER, CHUNKS)
    return path.read_bytes()


def test_header_and_chunks_are_read_again(tmp_path: Path) -> None:
    written(tmp_path / "s")
    header, chunks = snapshot.read(tmp_path / "s")
    assert header == HEADER
    assert list(chunks) == CHUNKS


def test_a_receiver_sees_index_and_term_in_the_first_bytes(tmp_path: Path) -> None:
    assert snapshot.peek(written(tmp_path / "s")[:30]) == (7, 3)
    assert snapshot.peek(b"something else entirely, long enough") == (0, 0)
    assert snapshot.peek(b"") == (0, 0)


def test_no_cut_and_no_flipped_byte_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    content = written(path)
    damaged = [content[:length] for length in range(len(content))]
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        damaged.append(bytes(flipped))
    for bad in damaged:
        path.write_bytes(bad)
        with pytest.raises(Damaged):
            snapshot.read(path)


def test_a_damaged_transfer_does_not_replace_the_snapshot(tmp_path: Path) -> None:
    content = written(tmp_path / "s")
    (tmp_path / "received").write_bytes(content[:-5])
    with pytest.raises(Damaged):
        snapshot.replace_checked(tmp_path / "received", tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == content


def test_a_received_snapshot_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    written(tmp_path / "received")
    monkeypatch.setattr("os.fsync", lambda _: order.append("sync"))
    really_rename = Path.rename

    def rename(source: Path, target: Path) -> Path:
        order.append("rename")
        return really_rename(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    snapshot.replace_checked(tmp_path / "received", tmp_path / "s")
    assert order == ["sync", "rename", "sync"]


def test_a_large_snapshot_is_synced_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever syncs a line of the log meanwhile waits for all of it."""
    path, sizes = tmp_path / "s", [0]
    monkeypatch.setattr("os.fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    snapshot.write(path, HEADER, [os.urandom(400 << 10)] * 10)
    sizes.append(path.stat().st_size)
    assert sizes[-1] > 10 * 400 << 10
    assert max(after - before for before, after in pairwise(sizes)) < SYNC_EVERY + (500 << 10)


def test_a_snapshot_that_was_replaced_is_let_go_by_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That frees its blocks, which takes the longer the larger it was."""
    path, new = tmp_path / "s", tmp_path / "new"
    written(path)
    written(new)
    closer = closer_of(path, monkeypatch, lambda: snapshot.publish(new, path))
    assert closer is not threading.current_thread()
