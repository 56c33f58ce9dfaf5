import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import failpoints
from cluster.errors import Conflict, Uncertain
from lxdpy.daemon.context import Daemon
from lxdpy.host.images import ImageStore
from lxdpy.resources.images.actions import drop, ensure_here, retained
from lxdpy.resources.images.commands import AddImage, DeleteImage
from lxdpy.resources.images.handlers import FORM, routes
from lxdpy.resources.images.model import IMAGES, Image
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.actions import Pools
from tests.lxdpy.fakes import LocalStore, local_daemon, serving
from tests.lxdpy.host.image_files import unified


def test_what_is_brought_here_just_then_is_not_dropped(tmp_path: Path) -> None:
    store = LocalStore()

    async def go() -> bool:
        daemon = local_daemon(tmp_path, store)
        daemon.images = ImageStore(tmp_path)
        daemon.images.folder.mkdir()
        async with asyncio.TaskGroup() as tasks, daemon.lock("image f1"):
            tasks.create_task(drop(daemon, "f1"))
            await asyncio.sleep(0)
            (daemon.images.folder / "f1").touch()
            store.put(IMAGES, "default/f1", Image("default", "f1"))
        return daemon.images.has("f1")

    assert asyncio.run(go())


def with_image(root: Path) -> Daemon:
    """That no project knows."""
    daemon = local_daemon(root, LocalStore())
    daemon.images, daemon.pools = ImageStore(root), Pools()
    daemon.images.folder.mkdir()
    (daemon.images.folder / "f1").touch()
    return daemon


def test_what_is_in_use_goes_only_with_its_last_user(tmp_path: Path) -> None:
    async def go() -> None:
        daemon = with_image(tmp_path)
        async with retained(daemon, "f1"):
            with contextlib.suppress(Conflict):
                async with retained(daemon, "f1"):
                    await drop(daemon, "f1")
                    raise Conflict("the first has failed")
            assert daemon.images.has("f1")
        assert not daemon.images.has("f1")

    asyncio.run(go())


def test_what_the_cluster_may_know_by_now_stays(tmp_path: Path) -> None:
    async def go() -> None:
        daemon = with_image(tmp_path)
        with pytest.raises(Uncertain):
            async with retained(daemon, "f1"):
                raise Uncertain("no majority")
        assert daemon.images.has("f1")

    asyncio.run(go())


def receiving(root: Path, tasks: asyncio.TaskGroup) -> Daemon:
    """With what a daemon needs to be sent images."""
    store = LocalStore()
    store.run(CreateDefaults())
    daemon = local_daemon(root, store, tasks=tasks, pools=Pools())
    daemon.images = ImageStore(root)
    return daemon


def test_what_was_sent_stays_though_it_was_deleted_just_before(tmp_path: Path) -> None:
    async def go() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = receiving(tmp_path, tasks)

            def late() -> None:
                for fingerprint in daemon.images.fingerprints():
                    tasks.create_task(drop(daemon, fingerprint))

            with failpoints.inject("image.received", late):
                async with serving(daemon, routes) as client:
                    answer = await client.reply("POST", "/1.0/images", unified())
                    assert answer.status == 202
                    for operation in daemon.operations.all():
                        await operation.wait()
            [row] = daemon.state.rows(IMAGES).values()
            assert daemon.images.has(row.fingerprint)

    asyncio.run(go())


def test_json_and_images_are_told_apart_where_curl_calls_both_a_form(tmp_path: Path) -> None:
    async def go() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = receiving(tmp_path, tasks)
            async with serving(daemon, routes) as client:
                for body, status in ((b' {"source": {"type": "nothing"}}', 501), (unified(), 202)):
                    answer = await client.reply("POST", "/1.0/images", body, **{"Content-Type": FORM})
                    assert answer.status == status
                for operation in daemon.operations.all():
                    await operation.wait()
        [row] = daemon.state.rows(IMAGES).values()
        assert row.fingerprint == hashlib.sha256(unified()).hexdigest()

    asyncio.run(go())


def test_files_that_a_peer_has_sent_are_there_though_one_project_has_deleted_the_image(
    tmp_path: Path,
) -> None:
    store, sent = LocalStore(), unified()
    name = hashlib.sha256(sent).hexdigest()
    for project in ("default", "own"):
        store.run(AddImage(Image(project, name, members=("other",))))

    class Peer:
        async def download(self, *_: object) -> AsyncIterator[bytes]:
            yield sent
            store.run(DeleteImage(f"default/{name}"))

    async def go() -> None:
        online = SimpleNamespace(online=lambda _: True)
        daemon = local_daemon(tmp_path, store, forwarder=Peer(), beat=online)
        daemon.images = ImageStore(tmp_path)
        await ensure_here(daemon, "default", name)
        assert daemon.images.has(name)
        assert store.state.get(IMAGES, f"own/{name}").members == ("other", daemon.member_id)

    asyncio.run(go())
