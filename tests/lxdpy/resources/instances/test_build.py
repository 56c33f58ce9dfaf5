import asyncio
from pathlib import Path
from typing import Any, cast

from cluster import failpoints
from lxdpy.host.images import ImageStore
from lxdpy.host.storage.dir import Dir
from lxdpy.host.storage.driver import Pool, Volume
from lxdpy.resources.images.actions import drop
from lxdpy.resources.images.commands import AddImage, DeleteImage
from lxdpy.resources.images.model import Image
from lxdpy.resources.instances.build import build
from lxdpy.resources.instances.model import INSTANCES, Source
from lxdpy.resources.operations.operation import Operation
from tests.contracts.storage import NoMounts
from tests.lxdpy.fakes import MEMBER_ID
from tests.lxdpy.host.image_files import in_pieces, unified
from tests.lxdpy.resources.instances.scene import house, instance, ready_store

ID = "00000000-0000-4000-8000-0123456789ab"


class Opened:
    """One pool, that is open."""

    def __init__(self, driver: Dir) -> None:
        self._driver = driver

    def driver(self, _: str) -> Dir:
        return self._driver

    def opened(self) -> list[Dir]:
        return [self._driver]


def test_an_image_that_is_deleted_meanwhile_makes_its_instance_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        store = ready_store()
        async with asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            driver = Dir(Pool("default", tmp_path, {}), NoMounts())
            await driver.create_pool()
            daemon.pools, daemon.images = cast(Any, Opened(driver)), ImageStore(tmp_path)
            async with daemon.images.upload() as upload:
                await upload.add(in_pieces(unified()))
                image = (await upload.finish()).files.fingerprint
            store.run(AddImage(Image("default", image, members=(MEMBER_ID,))))
            row = instance(store, "c1", "Creating", operation=ID, source=Source("image", image))

            def deleted() -> None:
                store.run(DeleteImage(f"default/{image}"))
                tasks.create_task(drop(daemon, image))

            with failpoints.inject("instance.image", deleted):
                await build(daemon, row.key, Operation(ID, "", {}, lambda: "n1", {}))
        assert store.state.get(INSTANCES, row.key).status == "Stopped"
        assert (driver.path(Volume("c1")) / "image/rootfs/etc/issue").is_file()
        assert (daemon.images.has(image), await driver.images()) == (False, [])

    asyncio.run(main())
