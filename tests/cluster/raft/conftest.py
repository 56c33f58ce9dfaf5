"""Members on simulated time, each test with its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.raft.simulator import Simulator


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    made = Simulator(tmp_path, monkeypatch)
    yield made
    for name in list(made.members):
        made.crash(name)


@pytest.fixture
def three(simulator: Simulator) -> Simulator:
    """With a leader."""
    for name in "abc":
        simulator.start(name)
    simulator.leader()
    return simulator
