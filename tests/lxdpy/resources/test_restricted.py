"""What a certificate that is confined to a project sees of nouns that are not in projects."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from lxdpy.resources.certificates.model import CERTIFICATES, Certificate
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.networks import handlers as networks
from lxdpy.resources.networks.model import NETWORKS, Network
from lxdpy.resources.projects import handlers as projects
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools import handlers as pools
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.rest.members import Members, members

NIC = {"eth0": {"type": "nic", "network": "br0"}}


def confined(root: Path, check: Callable[[Members], Awaitable[None]]) -> None:
    """The client may use project p; an instance of p and one of q use the pool and the network."""

    async def main() -> None:
        async with members(root, [projects.routes, networks.routes, pools.routes]) as made:
            store, mark = made.all[0].store, made.client.fingerprint()
            store.run(CreateDefaults())
            store.put(
                CERTIFICATES, mark, Certificate(mark, made.client.pem(), restricted=True, projects=("p",))
            )
            store.put(POOLS, "pool", Pool("pool", "dir", config={"rsync.bwlimit": "1MiB"}, status="Created"))
            store.put(NETWORKS, "default/br0", Network("default", "br0", status="Created"))
            for name in ("p", "q"):
                store.put(PROJECTS, name, Project(name))
                row = Instance(name, "c1", "c1", store.member_id, pool="pool", devices=NIC)
                store.put(INSTANCES, row.key, row)
            await check(made)

    asyncio.run(main())


def test_of_users_it_sees_those_in_its_projects_and_of_a_pool_no_config(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        mine, theirs = "/1.0/instances/c1?project=p", "/1.0/instances/c1?project=q"
        for path, config in (
            ("/1.0/storage-pools/pool", {"rsync.bwlimit": "1MiB"}),
            ("/1.0/networks/br0?project=p", {}),
        ):
            _, answer = await made.ask(0, "GET", path, own=made.client)
            assert answer["metadata"]["used_by"] == [mine]
            assert answer["metadata"]["config"] == ({} if "networks" in path else None)
            _, answer = await made.ask(0, "GET", path)
            assert (answer["metadata"]["used_by"], answer["metadata"]["config"]) == ([mine, theirs], config)

    confined(tmp_path, check)


def test_it_does_not_learn_what_other_projects_there_are(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        for name, status in (("p", 200), ("q", 403), ("none", 403)):
            for path in (f"/1.0/projects/{name}", f"/1.0/projects/{name}/state"):
                assert (await made.ask(0, "GET", path, own=made.client))[0] == status, path
        _, answer = await made.ask(0, "GET", "/1.0/projects", own=made.client)
        assert answer["metadata"] == ["/1.0/projects/p"]

    confined(tmp_path, check)
