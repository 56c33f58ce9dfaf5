"""Logs and snapshots of released versions are read as they were meant."""

import asyncio
import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.raft.journal import Identity
from cluster.raft.store import Store
from cluster.state.machine import digest
from lxdpy.dev.bench.simulation import Nobody
from lxdpy.resources.tables import new_machine
from tests.logs.replay import (
    CLUSTER,
    LEVELS,
    MEMBER,
    breaks,
    folder_of,
    lines_of,
    recorded_shapes,
    replayed,
    shapes,
)

RECORDED = recorded_shapes()


@pytest.mark.parametrize("level", LEVELS)
def test_each_command_does_what_it_did(level: int) -> None:
    """What a released version did is frozen: what is to be done otherwise needs a new tag."""
    lines = lines_of(level)
    for number, (was, now) in enumerate(zip(lines, replayed(lines), strict=True), 1):
        assert now == was, f"level-{level}.jsonl:{number}; if unreleased: python -m tests.logs.record --anew"


@pytest.mark.parametrize("level", LEVELS)
def test_a_member_starts_from_a_folder_of_that_time(level: int, tmp_path: Path) -> None:
    folder = tmp_path / "raft"
    shutil.copytree(folder_of(level), folder)
    store = Store(
        folder, Identity(CLUSTER, MEMBER), new_machine(),
        addresses=dict, voters=[], contexts=Nobody(), fresh=False,
    )  # fmt: skip

    async def start() -> None:
        await store.start()
        assert digest(await store.read_index()) == lines_of(level)[-1].digest
        await store.stop()

    asyncio.run(start())


def test_no_field_means_something_else_than_it_did() -> None:
    """A field may come, with the default that was true before it; nothing may go or change."""
    assert breaks(RECORDED, shapes()) == [], "if unreleased: python -m tests.logs.record --anew"


def changed(**fields: Any) -> dict[str, Any]:
    """Shapes as they are, with other fields of CreateGroup."""
    shape: dict[str, Any] = copy.deepcopy(RECORDED)
    properties = shape["RenameMember"]["properties"]
    for name, value in fields.items():
        if value is None:
            del properties[name]
        else:
            properties[name] = value
    return shape


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": None}, "RenameMember.name is gone"),
        ({"name": {"type": "integer"}}, "RenameMember.name was"),
        ({"name": {"type": "string", "default": "x"}}, "RenameMember.name was"),
        ({"command": {"enum": ["member.other"]}}, "RenameMember.command was"),
    ],
)
def test_what_would_be_misread_is_found(fields: dict[str, Any], said: str) -> None:
    assert [said in found for found in breaks(RECORDED, changed(**fields))] == [True]


def test_a_new_field_needs_a_default() -> None:
    shape = changed(colour={"type": "string", "default": ""})
    assert breaks(RECORDED, shape) == []
    shape["RenameMember"]["required"] = [*shape["RenameMember"]["required"], "colour"]
    assert breaks(RECORDED, shape) == ["RenameMember.colour has no default"]


def test_a_command_that_is_gone_is_missed() -> None:
    shape = changed()
    del shape["RenameMember"]
    assert breaks(RECORDED, shape) == ["RenameMember is gone"]


def test_a_further_choice_breaks_nothing() -> None:
    shape = copy.deepcopy(RECORDED)
    shape["Member"]["properties"]["status"]["enum"] += ["asleep"]
    assert breaks(RECORDED, shape) == []
    assert len(breaks(shape, RECORDED)) == 1
