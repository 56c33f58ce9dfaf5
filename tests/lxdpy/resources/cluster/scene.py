"""A member whose cluster is enabled, and another one that the state knows of but that is not there."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

from cluster.membership.commands import EnableCluster
from cluster.membership.model import MEMBERS, Member
from lxdpy.daemon.beat import Beat
from lxdpy.resources.cluster import groups, handlers
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving

OTHER = "ba9876543210"


def clustered() -> LocalStore:
    store = LocalStore()
    store.run(CreateDefaults())
    store.run(EnableCluster(MEMBER_ID, "n1", "10.0.0.1:8443", "", ""))
    store.put(MEMBERS, OTHER, Member(OTHER, "n2", address="10.0.0.2:8443", status="ready"))
    return store


def with_client(root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]]) -> None:
    """Serve /1.0/cluster."""

    async def main() -> None:
        beat = Beat(store)  # type: ignore[arg-type]  # a fake that has what it needs
        daemon = local_daemon(root, store, beat=beat, membership=SimpleNamespace(secrets={}))
        async with serving(daemon, handlers.routes, groups.routes) as client:
            await check(client)

    asyncio.run(main())
