"""Two members with the same rows have the same digest."""

import asyncio
from pathlib import Path
from typing import Any

from lxdpy.resources.cluster.digest import routes
from lxdpy.resources.profiles.commands import CreateProfile
from lxdpy.resources.profiles.model import Profile
from tests.lxdpy.fakes import LocalStore, local_daemon, serving


def shown(root: Path, store: LocalStore) -> Any:
    async def main() -> Any:
        async with serving(local_daemon(root, store), routes) as client:
            return (await client.ask("GET", "/internal/1.0/cluster/digest"))["metadata"]

    return asyncio.run(main())


def test_equal_rows_have_equal_digests_and_others_not(tmp_path: Path) -> None:
    one, two = LocalStore(), LocalStore()
    for store in (one, two):
        store.run(CreateProfile(Profile("default", "a")))
    assert shown(tmp_path, one) == shown(tmp_path, two)
    assert shown(tmp_path, one)["index"] == one.state.index
    two.run(CreateProfile(Profile("default", "b")))
    assert shown(tmp_path, one)["digest"] != shown(tmp_path, two)["digest"]
