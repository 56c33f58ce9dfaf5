import asyncio
import errno
import os
from pathlib import Path

import pytest

from cluster.errors import Exhausted
from lxdpy.host.run import CommandFailed
from lxdpy.host.storage.room import StorageFailed, is_full, room_in


def failing(error: Exception, folder: Path) -> None:
    async def go() -> None:
        async with room_in(folder, "do it"):
            raise error

    asyncio.run(go())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_kernels_word_for_full_is_ours_for_exhausted(number: int, tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="No space left to do it"):
        failing(OSError(number, "full"), tmp_path)


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="Could not do it: no"):
        failing(PermissionError(errno.EPERM, "no"), tmp_path)
    with pytest.raises(CommandFailed):  # there is room here, so that was not it
        failing(CommandFailed("tar failed"), tmp_path)


def test_looking_for_room_leaves_nothing(tmp_path: Path) -> None:
    assert not is_full(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not is_full(tmp_path / "missing")


def test_two_that_look_at_once_both_see_that_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each removes what it tries with, which has one name."""

    def full(*_: int) -> None:
        (tmp_path / ".lxdpy-probe").unlink()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert is_full(tmp_path)
