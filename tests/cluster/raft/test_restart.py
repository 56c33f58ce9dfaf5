"""Files that do not belong together, or cannot be read: a member starts with what is true, or not at all."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from cluster.raft.frames import Damaged
from tests.cluster.raft.simulator import Simulator

FILES = ("journal", "snapshot")


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    made = Simulator(tmp_path, monkeypatch)
    made.trailing = 3
    yield made
    for name in list(made.members):
        made.crash(name)


class History:
    """Copies of both files as they were at some times, and how far each of them went."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.simulator = simulator
        self.folder = folder
        self.files: dict[str, list[Path | None]] = {name: [] for name in FILES}
        self.reach: dict[Path, set[str]] = {}  # keys of the state that the file leads to by itself
        self.keys: set[str] = set()
        self.snapshot_keys: set[str] = set()

    def write(self, count: int) -> None:
        for number in range(count):
            key = f"k{len(self.keys)}.{number}"
            self.simulator.write("a", key)
            self.keys.add(key)

    def compact(self) -> None:
        self.simulator["a"]._core.forceLogCompaction()
        for _ in range(2):  # the snapshot, then the log
            self.simulator.run(0.05)
            self.simulator.write_files()
        self.simulator.run(0.05)
        self.snapshot_keys = set(self.keys)

    def keep(self) -> None:
        for name in FILES:
            source = self.simulator.folder / "a" / name
            if not source.exists():
                self.files[name].append(None)
                continue
            copy = self.folder / f"{name}.{len(self.files[name])}"
            shutil.copy(source, copy)
            self.files[name].append(copy)
            self.reach[copy] = set(self.keys if name == "journal" else self.snapshot_keys)

    def restart(self, journal: Path | None, snapshot: Path | None) -> set[str]:
        """The keys that are there then. Raises Damaged."""
        target = self.simulator.folder / "a"
        for name, path in zip(FILES, (journal, snapshot), strict=True):
            (target / name).unlink(missing_ok=True)
            if path is not None:
                shutil.copy(path, target / name)
        self.simulator.start("a", "a", fresh=False)
        self.simulator.leader()
        self.simulator.run(0.1)
        found = set(self.simulator.values("a"))
        self.simulator.crash("a")
        return found


def test_of_any_mix_of_old_and_new_files_all_is_there_or_it_does_not_start(
    simulator: Simulator, tmp_path: Path
) -> None:
    history = History(simulator, tmp_path)
    simulator.start("a", "a")
    simulator.leader()
    for _ in range(4):
        history.write(6)
        history.keep()
        history.compact()
        history.keep()
    simulator.crash("a")
    refused = 0
    for journal, snapshot in product(*history.files.values()):
        try:
            found = history.restart(journal, snapshot)
        except Damaged:
            refused += 1
            continue
        assert journal is not None
        expected = history.reach[journal] | (history.reach[snapshot] if snapshot else set())
        assert found == expected, f"{journal.name} with {snapshot and snapshot.name}"
    together = zip(*history.files.values(), strict=True)
    assert all(history.restart(journal, snapshot) for journal, snapshot in together)
    assert refused > 10


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not ours at all", b"RJF1" + b"\xff" * 100])
def test_a_file_that_is_not_ours_is_refused_by_name(simulator: Simulator, name: str, content: bytes) -> None:
    history = History(simulator, simulator.folder)
    simulator.start("a", "a")
    simulator.leader()
    history.write(6)
    history.compact()
    simulator.crash("a")
    (simulator.folder / "a" / name).write_bytes(content)
    with pytest.raises(Damaged, match=f"a/{name}"):
        simulator.start("a", "a", fresh=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_told_by_name(simulator: Simulator, name: str) -> None:
    folder = simulator.folder / "a"
    folder.mkdir()
    (folder / "journal").touch()
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(OSError, match=f"a/{name}"):
        simulator.start("a", "a", fresh=False)
