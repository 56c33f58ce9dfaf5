"""Instances whose files are brought by somebody who does not wait."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.errors import Exhausted
from lxdpy.daemon.beat import Beat
from lxdpy.resources.gpu_queue.asking import coming
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.instances.claims import ask_of, policy_of
from lxdpy.resources.instances.commands import CreateInstance
from lxdpy.resources.instances.create import Prepared
from lxdpy.resources.instances.expand import expand
from lxdpy.resources.instances.model import Instance, Source
from lxdpy.resources.instances.origin import Origin
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.gpus.scene import add, gpu
from tests.lxdpy.resources.storage_volumes.scene import furnished


def scene() -> LocalStore:
    """A member with one GPU."""
    store = LocalStore()
    store.run(CreateDefaults())
    add(furnished(store), gpu("GPU-a"))
    return store


def row(name: str, **config: str) -> Instance:
    keys = {key.replace("_", "."): value for key, value in config.items()}
    return Instance("default", name, name, MEMBER_ID, config=keys, pool="p1", source=Source("migration"))


def placed(folder: Path, store: LocalStore, new: Instance) -> CreateInstance:
    async def main() -> CreateInstance:
        daemon = local_daemon(folder, store, beat=Beat(cast(Any, store)))
        config, devices = expand((), new.config, new.devices)
        ask, policy = ask_of(config, devices, new.architecture), policy_of(store.state, config, None)
        return coming(daemon, Prepared(new, ask, policy, Origin(new.source), config, ""))

    return asyncio.run(main())


def test_one_that_may_wait_comes_without_gpus_where_there_are_none(tmp_path: Path) -> None:
    store = scene()
    assert placed(tmp_path, store, row("c1", limits_gpu="1", gpu_wait="10m")).grants
    store.run(CreateInstance(row("holder", limits_gpu="1"), (Grant("limits.gpu", "GPU-a"),)))
    command = placed(tmp_path, store, row("c1", limits_gpu="1", gpu_wait="10m"))
    assert (command.instance.location, command.grants) == (MEMBER_ID, ())
    store.run(command)
    with pytest.raises(Exhausted, match="0 of 1 GPU free"):
        placed(tmp_path, store, row("c2", limits_gpu="1"))


def test_it_does_not_pass_those_that_wait(tmp_path: Path) -> None:
    store = scene()
    waiting = Turn("op", "default", instances=(row("first", limits_gpu="1"),), since=1)
    store.put(GPU_QUEUE, waiting.id, waiting)
    assert placed(tmp_path, store, row("c1", limits_gpu="1", gpu_wait="10m")).grants == ()


def test_what_no_member_could_ever_give_it_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="2 wanted"):
        placed(tmp_path, scene(), row("c1", limits_gpu="2", gpu_wait="10m"))
