import asyncio
from pathlib import Path

import msgspec
import pytest

from lxdpy.resources.instances import given
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import Instance
from tests.lxdpy.fakes import MEMBER_ID, local_daemon

ROW = Instance("default", "c1", uuid="u", location=MEMBER_ID, architecture="x86_64")
FIRST = Given(({}, {}), ({}, {}))
LATER = msgspec.structs.replace(FIRST, init=7, notes={"volatile.last_state.power": "RUNNING"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of the record; the member's folder is two above."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "c1.json"


def saved(file: Path, *records: Given) -> Given | None:
    """What is loaded after they were saved one after the other."""

    async def work() -> Given | None:
        daemon = local_daemon(file.parents[1])
        for record in records:
            await given.save(daemon, ROW, record)
        assert await given.volumes(daemon) == {path.stem for path in file.parent.iterdir()}
        return await given.load(daemon, ROW)

    return asyncio.run(work())


def test_the_last_that_was_saved_counts(file: Path) -> None:
    assert saved(file) is None
    assert saved(file, FIRST, LATER) == LATER
    assert saved(file, FIRST) == FIRST


def test_a_line_that_a_crash_cut_short_does_not_count(file: Path) -> None:
    assert saved(file, FIRST, LATER) == LATER
    text = file.read_bytes()
    for length in range(text.rindex(b"\n"), len(text)):
        file.write_bytes(text[:length])
        assert saved(file) == FIRST
    assert saved(file, LATER) == LATER  # beside what is left of the other


def test_a_file_that_is_no_record_is_none(file: Path) -> None:
    file.write_bytes(b'{"at_start": [')
    assert saved(file) is None


def test_the_file_of_one_that_changes_often_does_not_grow_for_ever(file: Path) -> None:
    large = msgspec.structs.replace(FIRST, notes={"volatile.note": "x" * (given.LONGEST // 3)})
    assert saved(file, *[large] * 4, LATER) == LATER
    assert file.stat().st_size < given.LONGEST
    assert [path.name for path in file.parent.iterdir()] == [file.name]
