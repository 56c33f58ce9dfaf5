"""What the kernel does for containers: ids, layers, devices, limits, networks."""

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from cluster.errors import Conflict
from integration.containers import PATH, busybox_root, in_namespaces, ran, sh, spec
from integration.harness import eventually
from lxdpy.host.cgroups import CgroupFailed
from lxdpy.host.idmap import Idmap
from lxdpy.host.lxc.client import ExecRequest
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.lxc.spec import DeviceNode, Limits, Mount, Nic

pytestmark = pytest.mark.root

MIB = 1 << 20
KEPT_CHILDREN = 2  # of the helper, to mount for others
GPU = 195  # major of NVIDIA's nodes; without a driver, opening a granted one gives ENXIO


def gpu(number: int) -> DeviceNode:
    return DeviceNode(f"/dev/nvidia{number}", GPU, number, mode=0o666)


def test_isolated_containers_share_no_id_and_write_their_own_on_disk() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        maps = {"c1": Idmap(1_000_000), "c2": Idmap(1_065_536)}
        for name, idmap in maps.items():
            rootfs = busybox_root(folder / name)
            init = await runtime.start_container(spec(folder, name, idmap=idmap, rootfs=str(rootfs)))
            assert Path(f"/proc/{init}/uid_map").read_text().split() == ["0", str(idmap.base), "65536"]
            said = await sh(runtime, name, "touch /root/mine; stat -c %u:%g /root/mine /bin/busybox")
            assert said == "0:0\n0:0\n"
            # Shifting was never done, so the same files would serve any map.
            assert (rootfs / "root/mine").stat().st_uid == 0
        for name in maps:
            await runtime.kill_container(name)

    in_namespaces(scenario)


def test_containers_on_an_overlay_share_an_image_and_keep_their_changes_apart() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        image = busybox_root(folder / "image")
        (image / "root").chmod(0o700)
        os.chown(image / "tmp", 7, 8)
        for number, name in enumerate(("c1", "c2")):
            idmap = Idmap(1_000_000 + number * 65_536)
            target, kept = folder / name / "rootfs", folder / name / "kept"
            target.mkdir(parents=True)
            for _ in range(2):
                await runtime.mounts.mount_overlay([image], kept, target, idmap)
            assert target.stat().st_uid == idmap.base
            assert (target / "tmp").stat().st_gid == idmap.base + 8
            await runtime.start_container(
                spec(folder, name, rootfs=str(target), idmap=idmap, rootfs_is_mapped=True)
            )
            said = await sh(
                runtime, name, f"rm /etc/passwd; echo {name} > /root/new; stat -c %u /root/new /tmp"
            )
            assert said == "0\n7\n"
            assert (kept / "upper/root/new").stat().st_uid == 0
        assert await sh(runtime, "c1", "cat /root/new") == "c1\n"
        assert not (image / "root/new").exists()
        assert (image / "etc/passwd").exists()
        with pytest.raises(Conflict, match="busy"):
            await _hold(runtime, folder / "c1/rootfs")
        for name in ("c1", "c2"):
            await runtime.kill_container(name)
            for _ in range(2):
                await runtime.mounts.unmount(folder / name / "rootfs")
            assert not [*(folder / name / "rootfs").iterdir()]
        await runtime.mounts.mount_overlay(
            [image], folder / "c1/kept", folder / "c1/rootfs", Idmap(5_000_000)
        )
        assert (folder / "c1/rootfs/root/new").stat().st_uid == 5_000_000
        await runtime.mounts.unmount(folder / "c1/rootfs")

    in_namespaces(scenario)


def test_few_processes_mount_for_many_each_with_its_own_map_and_one_that_failed_is_not_asked_again() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        image = busybox_root(folder / "image")
        roots = [folder / str(number) / "rootfs" for number in range(12)]
        maps = [Idmap(1_000_000 + number * 65_536) if number % 4 else None for number in range(12)]

        async def mount(target: Path, idmap: Idmap | None) -> None:
            target.mkdir(parents=True)
            await runtime.mounts.mount_overlay([image], target.with_name("kept"), target, idmap)

        async with asyncio.TaskGroup() as tasks:
            for target, idmap in zip(roots, maps, strict=True):
                tasks.create_task(mount(target, idmap))
        assert [(root / "bin").stat().st_uid for root in roots] == [one.base if one else 0 for one in maps]
        eventually(lambda: 0 < len(_helpers(runtime)) <= KEPT_CHILDREN, within=30)
        kept = _helpers(runtime)
        for root in roots[:4]:
            await runtime.mounts.unmount(root)
            await runtime.mounts.mount_overlay([image], root.with_name("kept"), root, Idmap(9 << 20))
            assert (root / "bin").stat().st_uid == 9 << 20
        assert _helpers(runtime) == kept
        for number in range(len(kept)):
            with pytest.raises(Conflict, match="busy"):
                await _hold(runtime, roots[number])
        eventually(lambda: not _helpers(runtime), within=30)
        await runtime.mounts.unmount(roots[0])  # by another, which is kept
        (last,) = _helpers(runtime)
        os.kill(last, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{last}").exists(), within=30)  # then its socket is closed, too
        for root in roots:
            await runtime.mounts.unmount(root)
            assert not [*root.iterdir()]

    in_namespaces(scenario)


def _helpers(runtime: Runtime) -> list[int]:
    """Children of the helper that live."""
    pid = runtime.helper.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes()]


async def _hold(runtime: Runtime, mounted: Path) -> None:
    with (mounted / "bin/busybox").open("rb"):
        await runtime.mounts.unmount(mounted)


def test_a_mapped_mount_shows_other_ids_and_changes_none() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        source, target = folder / "source", folder / "target"
        source.mkdir()
        target.mkdir()
        (source / "file").touch()
        for _ in range(2):
            await runtime.mounts.mount_idmapped(source, target, Idmap(1_000_000), readonly=True)
        assert (target / "file").stat().st_uid == 1_000_000
        assert (source / "file").stat().st_uid == 0
        with pytest.raises(OSError, match="Read-only"):
            (target / "file").write_text("x")
        await runtime.mounts.unmount(target)
        assert not (target / "file").exists()

    in_namespaces(scenario)


def test_granted_devices_open_others_are_absent_or_denied() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder, devices=(gpu(0),)))
        assert await sh(runtime, "c1", "stat -c %a:%u:%g /dev/nvidia0") == "666:0:0\n"
        assert "No such device or address" in await sh(runtime, "c1", "cat /dev/nvidia0")
        assert "No such file or directory" in await sh(runtime, "c1", "cat /dev/nvidia1")
        assert "Operation not permitted" in await sh(runtime, "c1", "mknod /tmp/n c 195 1 && cat /tmp/n")
        # A node that came in some other way, without a grant.
        node = folder / "node"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(GPU, 1))
        node.chmod(0o666)
        await runtime.inject("c1", node, "/dev/nvidia1")
        assert "Operation not permitted" in await sh(runtime, "c1", "cat /dev/nvidia1")
        for path in ("/dev/null", "/dev/urandom", "/dev/tty", "/dev/full", "/dev/zero"):
            assert (await ran(runtime, "c1", ExecRequest(("test", "-c", path), PATH)))[0] == 0
        assert await sh(runtime, "c1", "head -c 3 /dev/zero | wc -c; echo x > /dev/null") == "3\n"
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_devices_come_and_go_while_the_container_runs() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder))
        for _ in range(2):
            for _ in range(2):
                await runtime.inject_device("c1", gpu(2))
            assert "No such device or address" in await sh(runtime, "c1", "cat /dev/nvidia2")
            for _ in range(2):
                await runtime.eject_device("c1", gpu(2))
            assert "No such file or directory" in await sh(runtime, "c1", "cat /dev/nvidia2")
        assert "Operation not permitted" in await sh(runtime, "c1", "mknod /tmp/n c 195 2 && cat /tmp/n")
        await runtime.kill_container("c1")
        with pytest.raises(Conflict, match="not running"):
            await runtime.inject_device("c1", gpu(2))

    in_namespaces(scenario)


def test_folders_come_and_go_while_the_container_runs_and_never_land_outside() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        disk = folder / "disk"
        disk.mkdir(mode=0o755)
        (disk / "here").touch()
        await runtime.start_container(spec(folder))
        await runtime.inject("c1", disk, "/srv/disk", mapped=True)
        assert await sh(runtime, "c1", "stat -c %u /srv/disk/here; touch /srv/disk/new; ls /srv/disk") == (
            "0\nhere\nnew\n"
        )
        assert (disk / "new").stat().st_uid == 0
        for _ in range(2):
            await runtime.eject("c1", "/srv/disk")
        assert await sh(runtime, "c1", "ls /srv") == ""
        await runtime.inject("c1", disk, "/srv/ro", mapped=True, readonly=True)
        assert "Read-only file system" in await sh(runtime, "c1", "touch /srv/ro/x")

        outside = folder / "outside"
        outside.mkdir()
        await sh(runtime, "c1", f"mkdir -p {folder}; ln -s {outside} /trap")
        with pytest.raises(Exception, match=r"No such file|File exists"):
            await runtime.inject("c1", disk, "/trap", mapped=True)
        assert not [*outside.iterdir()]
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_limits_hold_and_can_be_changed_while_the_container_runs() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        limits = Limits(cpus="1", memory=32 * MIB, processes=20, cpu_quota=(20_000, 100_000))
        await runtime.start_container(spec(folder, limits=limits))
        hog = ExecRequest(("dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1"), PATH)
        forks = "for i in $(seq 40); do sleep 1000 >/dev/null 2>&1 & done"
        assert await sh(runtime, "c1", "nproc") == "1\n"
        assert (await ran(runtime, "c1", hog))[0] == 137
        assert "can't fork" in await sh(runtime, "c1", forks)

        await runtime.set_limits("c1", Limits(cpus="0-1", memory=128 * MIB, processes=200))
        assert await sh(runtime, "c1", "nproc") == "2\n"
        assert (await ran(runtime, "c1", hog))[0] == 0
        assert "can't fork" not in await sh(runtime, "c1", forks)
        await runtime.set_limits("c1", Limits(memory=64 * MIB))
        await runtime.set_limits("c1", Limits())
        assert (await ran(runtime, "c1", hog))[0] == 0
        with pytest.raises(CgroupFailed, match=r"refused cpuset\.cpus = 999"):
            await runtime.set_limits("c1", Limits(cpus="999"))
        used = runtime.usage("c1")
        assert used.cpu > 1_000_000
        assert 100_000 < used.memory <= used.memory_peak
        assert used.memory_peak > 50 * MIB
        assert used.processes >= 1
        await runtime.kill_container("c1")
        assert runtime.usage("c1").cpu == 0
        with pytest.raises(Conflict, match="not running"):
            await runtime.set_limits("c1", Limits())

    in_namespaces(scenario)


def test_a_quota_slows_a_busy_container_down() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder, limits=Limits(cpu_quota=(10_000, 100_000))))
        null = os.open("/dev/null", os.O_RDWR)
        busy = ExecRequest(("sh", "-c", "while :; do :; done"), PATH)
        session = await runtime.exec("c1", busy, (null, null, null))
        figures = runtime.cgroups.payload("cpu", "c1") / "cpu.stat"
        eventually(lambda: "nr_throttled 0\n" not in figures.read_text(), within=30)
        session.signal(9)
        os.close(null)
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_container_cannot_lift_its_limits_nor_mount_over_its_groups() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        await runtime.start_container(spec(folder, limits=Limits(memory=32 * MIB)))
        said = await sh(runtime, "c1", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; id -u")
        assert str(32 * MIB) not in said  # its own group is below the one with the limit
        await sh(runtime, "c1", "echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes")
        hog = ExecRequest(("dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1"), PATH)
        assert (await ran(runtime, "c1", hog))[0] == 137
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_network_interfaces_are_told_as_lxd_tells_them() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        for words in ("link add br0 type bridge", "addr add 10.9.0.1/24 dev br0", "link set br0 up"):
            subprocess.run(["ip", *words.split()], check=True)
        nic = Nic("eth0", "br0", host_name="vethtest", hwaddr="00:16:3e:00:00:01", mtu=1400)
        await runtime.start_container(spec(folder, nics=(nic,)))
        script = "ip link set lo up; ip addr add 10.9.0.2/24 dev eth0; ip -6 addr add fd42::2/64 dev eth0"
        await sh(runtime, "c1", f"{script}; ping -c 2 10.9.0.1")
        found = await runtime.addresses("c1")
        assert set(found) == {"lo", "eth0"}
        assert found["lo"]["type"] == "loopback"
        local = {"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}
        assert local in found["lo"]["addresses"]
        eth0 = found["eth0"]
        assert (eth0["hwaddr"], eth0["host_name"], eth0["mtu"], eth0["state"], eth0["type"]) == (
            "00:16:3e:00:00:01", "vethtest", 1400, "up", "broadcast"
        )  # fmt: skip
        assert {"family": "inet", "address": "10.9.0.2", "netmask": "24", "scope": "global"} in eth0[
            "addresses"
        ]
        assert {"family": "inet6", "address": "fd42::2", "netmask": "64", "scope": "global"} in eth0[
            "addresses"
        ]
        assert eth0["counters"]["bytes_sent"] > 0
        assert os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{runtime.helper.pid}/ns/net")
        assert await runtime.addresses("never") == {}
        await runtime.kill_container("c1")
        assert not Path("/sys/class/net/vethtest").exists()

    in_namespaces(scenario)


def test_nesting_lets_a_container_mount_proc_in_namespaces_of_its_own() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        (busybox_root(folder / "rootfs") / "bin/unshare").symlink_to("busybox")
        script = "unshare -U -r -m -p -f sh -c 'mount -t proc proc /mnt && echo mounted'"
        await runtime.start_container(spec(folder))
        assert "mounted" not in await sh(runtime, "c1", script)
        await runtime.kill_container("c1")
        await runtime.start_container(spec(folder, nesting=True))
        assert await sh(runtime, "c1", script) == "mounted\n"
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_what_is_mounted_at_the_start_has_its_options() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        disk = folder / "a disk"
        disk.mkdir()
        (disk / "here").touch()
        plain = Mount(str(disk), "srv/plain folder", "bind,create=dir,ro")
        mapped = Mount(str(disk), "srv/mapped", "bind,create=dir,idmap=container")
        await runtime.start_container(spec(folder, mounts=(plain, mapped), environment={"GREETING": "hello"}))
        said = await sh(
            runtime, "c1", "stat -c %u '/srv/plain folder/here' /srv/mapped/here; touch /srv/mapped/new"
        )
        assert said == "65534\n0\n"
        assert (disk / "new").stat().st_uid == 0
        assert "Read-only" in await sh(runtime, "c1", "touch '/srv/plain folder/x'")
        init = Path(f"/proc/{runtime.state('c1').init_pid}/environ").read_bytes().split(b"\0")
        assert b"GREETING=hello" in init
        await runtime.kill_container("c1")

    in_namespaces(scenario)


def test_a_host_with_unified_control_groups_grants_devices_and_freezes_as_well() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        assert not runtime.cgroups.layout.legacy
        await runtime.start_container(spec(folder, devices=(gpu(0),)))
        assert "No such device or address" in await sh(runtime, "c1", "cat /dev/nvidia0")
        node = folder / "node"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(GPU, 1))
        node.chmod(0o666)
        await runtime.inject("c1", node, "/dev/nvidia1")
        assert "Operation not permitted" in await sh(runtime, "c1", "cat /dev/nvidia1")
        await runtime.inject_device("c1", gpu(2))
        assert "No such device or address" in await sh(runtime, "c1", "cat /dev/nvidia2")
        await runtime.eject_device("c1", gpu(2))
        assert "No such file or directory" in await sh(runtime, "c1", "cat /dev/nvidia2")
        await runtime.freeze("c1")
        assert runtime.state("c1").status == "Frozen"
        await runtime.unfreeze("c1")
        assert runtime.usage("c1").cpu > 0
        await runtime.freeze("c1")
        await runtime.kill_container("c1")

    in_namespaces(scenario, unified=True)
