"""The simulated cluster is one: all of its commands are accepted, and every measure gets a figure."""

import asyncio
from pathlib import Path

import pytest

from cluster.raft import compaction
from lxdpy.dev.bench import simulation
from lxdpy.resources.gpus.model import GPUS as CARDS
from lxdpy.resources.instances.model import INSTANCES


def test_a_small_one_gives_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"APPLIED": 20, "ABREAST": 64, "PLACED": 3, "EXPLAINED": 1, "SNAPSHOTS": 1}.items():
        monkeypatch.setattr(simulation, name, value)
    monkeypatch.setattr(compaction, "MAX_JOURNAL", simulation.NEVER)
    run = simulation.Run(tmp_path / "raft", members=3, instances=80)
    samples = asyncio.run(run.all())
    assert samples.keys() == {measure.name for measure in simulation.MEASURES}
    assert all(figure > 0 for name, figures in samples.items() for figure in figures if name != "sim-memory")
    assert (len(samples["sim-place"]), len(samples["sim-snapshot"])) == (3, 1)
    state = run.store.state
    assert len(state.rows(INSTANCES)) == 80 + 3
    assert len(state.rows(CARDS)) == 3 * simulation.GPUS
