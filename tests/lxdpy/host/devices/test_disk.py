"""What a disk device adds to a container."""

import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid
from lxdpy.host.devices.disk import Disk, SourceMissing, rates
from lxdpy.host.devices.driver import Attachment, Mount, Seat


def host(path: Path, **options: str) -> Seat:
    """A device that shows a path of the host."""
    mine = {"type": "disk", "path": "/mnt/data/", "source": str(path), **options}
    return Seat(instance="default/c1", name="data", options=mine)


def started(where: Seat) -> Attachment:
    return asyncio.run(Disk().start(where))


def test_the_root_disk_adds_nothing() -> None:
    root = Seat(instance="default/c1", name="root", options={"type": "disk", "path": "/", "pool": "default"})
    assert started(root) == Attachment()


def test_a_folder_of_the_host_is_bound_as_it_is(tmp_path: Path) -> None:
    assert started(host(tmp_path)).mounts == (Mount(source=str(tmp_path), target="/mnt/data"),)


def test_a_file_is_bound_onto_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not started(host(tmp_path / "file")).mounts[0].directory


def test_options_reach_the_mount(tmp_path: Path) -> None:
    options = {"readonly": "true", "recursive": "1", "shift": "true", "propagation": "rslave"}
    mount = started(host(tmp_path, **options, **{"raw.mount.options": "noexec,nosuid"})).mounts[0]
    assert (mount.readonly, mount.recursive, mount.idmapped) == (True, True, True)
    assert mount.options == ("noexec", "nosuid", "rslave")


def test_a_volume_shows_its_owners_as_the_instances_own(tmp_path: Path) -> None:
    options = {"path": "/data", "pool": "default", "source": "vol1"}

    def mount(*, privileged: bool) -> Mount:
        where = Seat(
            instance="default/c1",
            name="data",
            options={"type": "disk", **options},
            source=str(tmp_path),
            privileged=privileged,
        )
        return started(where).mounts[0]

    assert mount(privileged=False).idmapped
    assert mount(privileged=False).source == str(tmp_path)
    assert not mount(privileged=True).idmapped


@pytest.mark.parametrize("options", [{"optional": "true"}, {"required": "false"}])
def test_a_missing_source_stops_the_start_unless_it_is_optional(
    tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(SourceMissing, match="none"):
        started(host(tmp_path / "none"))
    assert started(host(tmp_path / "none", **options)) == Attachment()


def test_unplugging_takes_the_same_mount_out(tmp_path: Path) -> None:
    (there,) = asyncio.run(Disk().detach(host(tmp_path))).mounts
    assert there.target == started(host(tmp_path)).mounts[0].target
    asyncio.run(Disk().stop(host(tmp_path)))


def test_only_what_a_bind_mount_can_have_is_taken(tmp_path: Path) -> None:
    takes = r'"raw\.mount\.options" has "discard", but .* only: ro, nosuid'
    with pytest.raises(Invalid, match=takes) as refused:
        started(host(tmp_path, **{"raw.mount.options": "nosuid,discard"}))
    assert refused.value.facts["key"] == "raw.mount.options"
    assert started(host(tmp_path, **{"raw.mount.options": "rw,noatime"})).mounts[0].options == ("noatime",)


def test_limits_are_of_reading_and_writing_or_both() -> None:
    assert rates({}) == {}
    assert rates({"limits.read": "10MB", "limits.write": "30iops"}) == {
        "read_bytes": 10_000_000,
        "write_iops": 30,
    }
    assert rates({"limits.max": "1MiB", "limits.read": "1"}) == {
        "read_bytes": 1 << 20,
        "write_bytes": 1 << 20,
    }


def test_what_is_on_no_block_device_cannot_be_limited() -> None:
    nowhere = {"type": "disk", "path": "/x", "source": "/proc", "limits.read": "1MB"}
    with pytest.raises(Invalid, match=r'"limits\.read" needs a block device, and /proc is on none'):
        asyncio.run(Disk().throttles(Seat(instance="default/c1", name="d", options=nowhere)))
