"""A daemon put together, with its log, but none of its containers: what its start must not miss."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from cluster import failpoints
from cluster.errors import Error
from cluster.ids import new_member_id
from cluster.membership import identity as identities
from cluster.membership.identity import new_identity
from cluster.membership.model import INVENTORIES
from cluster.raft.store import Store
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.instance_states import CAST
from lxdpy.daemon.main import Options, assemble
from lxdpy.daemon.membership import Membership
from lxdpy.daemon.work import Work, open_log
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.server.commands import ConfigureServer

STATE = b'{"status":"Running","pid":7}'


def assembled(root: Path, story: Callable[[Daemon, Work], Awaitable[None]]) -> None:
    async def run() -> None:
        (root / "run").mkdir()
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            daemon, api = await assemble(root, Options(None, None), tasks)
            try:
                await story(daemon, Work(daemon, api, None))
            finally:
                await daemon.membership.listener.close()
                await daemon.store.stop()
                await daemon.forwarder.close()
            raise asyncio.CancelledError

    with suppress(asyncio.CancelledError):
        asyncio.run(run())


def test_what_others_tell_while_the_log_opens_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(store: Store, membership: Membership) -> None:
        await open_log(store, membership)
        store._audience.casts.tell("0123456789ab", {"type": CAST, "states": {"an uuid": STATE}})

    monkeypatch.setattr("lxdpy.daemon.main.open_log", opened)

    async def story(daemon: Daemon, _: Work) -> None:
        row = Instance("default", "c1", "an uuid", "0123456789ab", status="Running")
        assert daemon.states.shown(row) == msgspec.Raw(STATE)

    assembled(tmp_path, story)


def test_a_first_start_that_was_cut_short_is_made_up_for(tmp_path: Path) -> None:
    async def story(daemon: Daemon, work: Work) -> None:
        with (
            failpoints.inject("cluster.founded", Error("cut short")),
            pytest.raises(Error, match="cut short"),
        ):
            await work.found()
        assert not daemon.state.rows(PROFILES)
        await work.found()
        assert list(daemon.state.rows(PROFILES)) == ["default/default"]

    assembled(tmp_path, story)


def test_an_identity_that_could_not_be_kept_is_kept_by_the_next_try(tmp_path: Path) -> None:
    async def story(daemon: Daemon, work: Work) -> None:
        await work.found()
        own = {"core.https_address": "127.0.0.1:0"}
        with failpoints.inject("identity.followed", OSError(28, "full")):
            await daemon.store.propose(ConfigureServer({}, daemon.member_id, own))
            with pytest.raises(OSError, match="full"):
                await daemon.membership.refresh()
        await daemon.membership.refresh()
        kept = identities.load(tmp_path)
        assert kept is not None
        assert kept.listen == own["core.https_address"]
        assert daemon.membership.listening()

    assembled(tmp_path, story)


def test_a_server_that_begins_anew_tells_what_its_host_has(tmp_path: Path) -> None:
    async def story(daemon: Daemon, work: Work) -> None:
        await work.found()
        fresh = new_identity(new_member_id())
        async with daemon.lock("identity"):
            await daemon.membership.become(fresh)
        await daemon.until(lambda state: state.find(INVENTORIES, fresh.member_id) is not None, 20)

    assembled(tmp_path, story)
