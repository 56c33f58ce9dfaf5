"""The storage contract for drivers that need no root; integration/test_storage.py tries the others."""

import asyncio
from pathlib import Path

from lxdpy.host.storage.dir import Dir
from lxdpy.host.storage.driver import Pool
from tests.contracts.storage import Bench, NoMounts, Promise, by_promise


@by_promise
def test_dir_keeps_its_promise_that(promise: Promise, tmp_path: Path) -> None:
    async def go() -> None:
        driver = Dir(Pool("local", tmp_path, {}), NoMounts())
        await driver.create_pool()
        await promise(Bench(driver, lambda volume: driver.path(volume) / "overlay" / "upper"))

    asyncio.run(go())
