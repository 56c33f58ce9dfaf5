"""The processes beside containers, as the daemon begins and ends them."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from lxdpy.host.companion import control as companions
from lxdpy.host.intercept import control
from lxdpy.host.intercept.control import Rules
from lxdpy.host.paths import InstancePaths
from lxdpy.host.run import run


def test_one_begins_though_the_last_of_the_others_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With which the folder of all of them goes."""

    async def last_one_ends(*words: Any, **more: Any) -> Any:
        await control.stop(InstancePaths(tmp_path, "c2"))
        assert not paths.calls.parent.exists()
        return await run(*words, **more)

    async def check() -> None:
        monkeypatch.setattr(companions, "run", last_one_ends)
        pid = await control.ensure(paths, Rules(("mknod",)), 0)
        try:
            os.kill(pid, 0)  # it is there
            assert paths.calls.is_socket()
        finally:
            await control.stop(paths)
        assert not paths.calls.parent.exists()

    paths = InstancePaths(tmp_path, "c1")
    asyncio.run(check())
