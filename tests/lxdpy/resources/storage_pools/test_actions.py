import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cluster.errors import Unavailable
from cluster.membership.model import MEMBERS, Member
from lxdpy.host.storage.dir import Dir
from lxdpy.resources.cluster.commands import LeaveMember, RemoveMember
from lxdpy.resources.cluster.model import MemberConfigKey
from lxdpy.resources.storage_pools.actions import Pools
from lxdpy.resources.storage_pools.commands import CreatePool, DeletePool
from lxdpy.resources.storage_pools.model import GONE_POOLS, POOLS, Pool, PoolMember
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon


def pools(root: Path, store: LocalStore) -> Pools:
    made = Pools()
    made.daemon = local_daemon(root, store, pools=made, runtime=SimpleNamespace(mounts=None))
    return made


def test_a_joiner_makes_its_part_of_a_pool_only_when_its_keys_are_known(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        store.put(POOLS, "p1", Pool("p1", "dir", status="Created", members={"other": PoolMember()}))
        own = pools(tmp_path, store)
        await own.ensure("p1")
        with pytest.raises(Unavailable):
            own.driver("p1")
        here = str(tmp_path / "storage-pools" / "p1")
        await own.introduce(
            [
                MemberConfigKey("storage-pool", "p1", "source", here),
                MemberConfigKey("network", "p1", "size", "1"),
            ]
        )
        assert store.state.get(POOLS, "p1").members[MEMBER_ID] == PoolMember({"source": here})
        await own.ensure("p1")
        assert store.state.get(POOLS, "p1").members[MEMBER_ID] == PoolMember({"source": here}, "Created")
        own.driver("p1")

    asyncio.run(main())


async def made(own: Pools, store: LocalStore, *others: str) -> Path:
    """Its folder."""
    parts = {member: PoolMember() for member in (MEMBER_ID, *others)}
    store.run(CreatePool(Pool("p1", "dir", members=parts)))
    await own.ensure("p1")
    return own.daemon.root / "storage-pools" / "p1"


def test_a_pool_that_is_made_again_at_once_is_another_one(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        own = pools(tmp_path, store)
        (await made(own, store) / "custom" / "left").mkdir()
        store.run(DeletePool("p1"))
        folder = await made(own, store)
        assert not list((folder / "custom").iterdir())
        assert store.state.get(POOLS, "p1").members[MEMBER_ID].status == "Created"
        assert not store.state.rows(GONE_POOLS)

    asyncio.run(main())


def test_nothing_is_made_in_a_pool_that_is_being_deleted(tmp_path: Path) -> None:
    """Though there be a new one of that name already."""

    async def main() -> None:
        store = LocalStore()
        own = pools(tmp_path, store)
        await made(own, store)
        store.run(DeletePool("p1"))
        store.run(CreatePool(Pool("p1", "dir", members={MEMBER_ID: PoolMember()})))

        async def end() -> None:
            with pytest.raises(Unavailable, match="it is being made"):
                own.driver("p1")
            await Dir.delete_pool(old)

        old = cast(Dir, own.driver("p1"))
        old.delete_pool = end  # type: ignore[method-assign]
        await own.ensure("p1")
        assert own.driver("p1") is not old

    asyncio.run(main())


def test_a_pool_deleted_while_this_member_was_down_goes_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        folder = await made(pools(tmp_path, store), store)
        store.run(DeletePool("p1"))
        after = pools(tmp_path, store)
        after.daemon.current = False
        await after.ensure("p1")
        assert folder.exists(), "what is on disk of the log may be older than the pool"
        after.daemon.current = True
        await after.ensure("p1")
        assert not folder.exists()
        assert not store.state.rows(GONE_POOLS)

    asyncio.run(main())


def test_a_deleted_pool_is_remembered_until_no_member_has_a_part_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        store = LocalStore()
        own = pools(tmp_path, store)
        store.put(MEMBERS, "other", Member("other", "n2", status="ready"))
        await made(own, store, "other")
        store.run(DeletePool("p1"))
        await own.ensure("p1")
        assert [list(row.members) for row in store.state.rows(GONE_POOLS).values()] == [["other"]]
        store.run(LeaveMember("other", forced=True))
        store.run(RemoveMember("other"))
        assert not store.state.rows(GONE_POOLS)

    asyncio.run(main())
