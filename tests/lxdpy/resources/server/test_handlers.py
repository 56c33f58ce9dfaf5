import asyncio
from pathlib import Path

import pytest

from lxdpy.resources.server import control
from lxdpy.resources.server.handlers import routes
from lxdpy.resources.server.model import setting
from tests.lxdpy.fakes import LocalStore, local_daemon, serving
from tests.lxdpy.resources.cluster.scene import clustered


def patched(root: Path, store: LocalStore, **config: str) -> tuple[int, str]:
    """Status and error of an attempt to set what `config` says, "__" for a dot."""

    async def main() -> tuple[int, str]:
        async with serving(local_daemon(root, store), routes) as client:
            body = {"config": {name.replace("__", "."): value for name, value in config.items()}}
            answer = await client.ask("PATCH", "/1.0", body)
            return answer["error_code"], answer["error"]

    return asyncio.run(main())


def test_what_is_set_is_kept_and_an_empty_text_unsets(tmp_path: Path) -> None:
    store = LocalStore()
    assert patched(tmp_path, store, images__compression_algorithm="xz") == (0, "")
    assert setting(store.state, "images.compression_algorithm") == "xz"
    assert patched(tmp_path, store, images__compression_algorithm="") == (0, "")
    assert setting(store.state, "images.compression_algorithm", "unset") == "unset"


@pytest.mark.parametrize("value", ["x", ""])
def test_a_key_that_is_not_known_is_neither_set_nor_unset(tmp_path: Path, value: str) -> None:
    refused = (400, "Unknown configuration key: core.nonsense")
    assert patched(tmp_path, LocalStore(), core__nonsense=value) == refused


def test_a_members_address_in_the_cluster_stays_as_it_is(tmp_path: Path) -> None:
    refused = (400, "Changing cluster.https_address is currently not supported")
    assert patched(tmp_path, clustered(), cluster__https_address="10.0.0.9:8443") == refused


def test_a_version_that_is_not_the_present_one_is_refused_though_nothing_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(local_daemon(tmp_path, LocalStore()), routes) as client:
            answer = await client.ask("PATCH", "/1.0", {"config": {}}, **{"If-Match": '"older"'})
            assert answer["error_code"] == 412

    asyncio.run(main())


def test_what_is_done_by_itself_can_be_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(local_daemon(tmp_path, LocalStore()), control.routes) as client:
            for what in ("gc", "testing/image-refresh"):
                assert (await client.ask("GET", f"/internal/{what}"))["status_code"] == 200

    asyncio.run(main())
