"""The tables of all entities: each key can be explained, each default is allowed, LXD's names are there."""

import pytest

from cluster.errors import Invalid
from lxdpy.config import everything
from lxdpy.config.instance import INSTANCE
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.pool import POOL
from lxdpy.config.project import PROJECT
from lxdpy.config.server import SERVER

KEYS = [(table, key) for table in everything().values() for key in table.keys]
IDS = [f"{table.name}: {key.name}" for table, key in KEYS]

GOOD = {
    "limits.cpu": "0-3,8", "limits.memory": "50%", "limits.kernel.nofile": "1024:unlimited",
    "limits.hugepages.2MB": "64MB", "limits.gpu": "2", "gpu.match": "vendor=nvidia memory>=40GiB",
    "gpu.wait": "-1", "gpu.hold": "always", "gpu.memory": "8GiB", "gpu.policy": "pack",
    "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "image.os": "debian", "environment.TERM": "dumb",
    "user.anything": "x", "snapshots.schedule": "@never", "snapshots.expiry": "1w",
    "raw.idmap": "both 1000 1000\nuid 50-60 500-510", "security.nesting": "true",
    "security.syscalls.intercept.mount.fuse": "ext4=fuse2fs, xfs=/opt/bin/xfs-fuse",
    "nvidia.driver.capabilities": "compute,utility", "linux.sysctl.net.ipv4.ip_forward": "1",
}  # fmt: skip
BAD = {
    "limits.cpu": "many", "limits.memory": "lots", "limits.memory.enforce": "softly", "limits.gpu": "-1",
    "limits.processes": "0", "gpu.match": "colour=red", "gpu.sharing": "perhaps", "security.nesting": "2",
    "limits.kernel.nofile": "-1", "raw.idmap": "both 1000", "boot.autostart.priority": "first",
    "snapshots.schedule": "sometimes", "cluster.evacuate": "run", "nvidia.driver.capabilities": "magic",
    "security.syscalls.intercept.bpf": "perhaps", "security.syscalls.intercept.mount.fuse": "ext4",
}  # fmt: skip


@pytest.mark.parametrize(("table", "key"), KEYS, ids=IDS)
def test_a_default_is_a_value_the_key_takes(table: KeyTable, key: Key) -> None:
    if key.default is not None:
        table.check({key.name: key.default})


@pytest.mark.parametrize("name", GOOD)
def test_an_instance_takes(name: str) -> None:
    INSTANCE.check({name: GOOD[name]})


@pytest.mark.parametrize("name", BAD)
def test_an_instance_refuses_and_says_which_value(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        INSTANCE.check({name: BAD[name]})
    assert name.split(".")[-1] in refusal.value.message
    assert BAD[name].split("=")[0] in refusal.value.message


@pytest.mark.parametrize(
    "name", ["limits.gpus", "security.secureboot", "limits.kernel.horses", "foo", "user"]
)
def test_an_instance_has_no_key(name: str) -> None:
    with pytest.raises(Invalid, match=f"Unknown configuration key: {name}"):
        INSTANCE.check({name: "1"})


def test_a_server_takes_an_odd_number_of_voters() -> None:
    SERVER.check({"cluster.max_voters": "5"})
    for wrong in ("4", "1"):
        with pytest.raises(Invalid, match="an odd number"):
            SERVER.check({"cluster.max_voters": wrong})


def test_the_trust_password_is_a_secret() -> None:
    assert SERVER.shown({"core.trust_password": "hunter2"}) == {"core.trust_password": "true"}


def test_addresses_are_of_one_member_and_the_rest_of_the_cluster() -> None:
    config = {"core.https_address": ":8443", "cluster.https_address": "n1:8443", "core.shutdown_timeout": "1"}
    assert SERVER.local(config).keys() == {"core.https_address", "cluster.https_address"}


def test_a_pool_presets_its_volumes() -> None:
    POOL.check({"volume.size": "10GB", "volume.snapshots.schedule": "@daily"})
    assert POOL.local({"source": "/srv", "volume.size": "1GB"}) == {"source": "/srv"}
    with pytest.raises(Invalid, match=r"volume\.size"):
        POOL.check({"volume.size": "large"})


def test_a_project_counts_gpus() -> None:
    PROJECT.check({"limits.gpu": "4", "restricted.devices.gpu": "allow"})
    with pytest.raises(Invalid, match="one of allow, block"):
        PROJECT.check({"restricted.devices.gpu": "some"})
