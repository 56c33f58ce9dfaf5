"""What of images takes root: owners, nodes, capabilities, full disks, and that what is built starts."""

import asyncio
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.errors import Exhausted
from integration.containers import in_namespaces, sh
from lxdpy.host.build import build_busybox
from lxdpy.host.idmap import Idmap
from lxdpy.host.image_archive import pack, unpack
from lxdpy.host.images import ImageStore
from lxdpy.host.lxc import seccomp
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.lxc.spec import ContainerSpec, Nic
from lxdpy.host.storage.dir import Dir
from lxdpy.host.storage.driver import Pool, Volume

pytestmark = pytest.mark.root
MIB = 2**20
PING = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap writes it
DNSMASQ = (
    "dnsmasq --keep-in-foreground --bind-interfaces --except-interface=lo --interface=br0 --pid-file="
    " --listen-address=10.199.0.1 --dhcp-range=10.199.0.2,10.199.0.99,1h --no-ping --dhcp-authoritative"
    " --no-resolv --no-hosts --conf-file=/dev/null -u root --domain=lxd --dhcp-leasefile="
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lxdpy-images-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    image, mount = folder / "small.img", folder / "small"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    (mount / "lost+found").rmdir()
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("compression", ["zstd", "squashfs"])
def test_owners_nodes_capabilities_and_times_survive(folder: Path, compression: str) -> None:
    tree, again = folder / "tree", folder / "again"
    tree.mkdir()
    again.mkdir()
    (tree / "tool").write_text("x")
    os.chown(tree / "tool", 123, 456)
    (tree / "tool").chmod(0o6755)
    os.setxattr(tree / "tool", "security.capability", PING)
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(tree / "pipe")
    os.utime(tree / "tool", (1_000_000_000, 1_000_000_000))
    names = ("tool", "null", "pipe")
    asyncio.run(pack(tree, folder / "image", compression, names=names))
    asyncio.run(unpack(folder / "image", again))
    seen = (again / "tool").stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mtime) == (123, 456, 1_000_000_000)
    assert stat.S_IMODE(seen.st_mode) == 0o6755
    assert os.getxattr(again / "tool", "security.capability") == PING
    assert (again / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((again / "pipe").stat().st_mode)


@pytest.mark.parametrize("compression", ["none", "gzip", "squashfs"])
def test_a_disk_that_fills_is_told_from_a_damaged_image(folder: Path, small: Path, compression: str) -> None:
    (folder / "tree").mkdir()
    for number in range(8):
        (folder / "tree" / str(number)).write_bytes(os.urandom(4 * MIB))
    names = tuple(map(str, range(8)))
    asyncio.run(pack(folder / "tree", folder / "image", compression, names=names))
    with pytest.raises(Exhausted, match="No space left to unpack"):
        asyncio.run(unpack(folder / "image", small))


def test_packing_to_a_full_disk_leaves_no_file(folder: Path, small: Path) -> None:
    (folder / "blob").write_bytes(os.urandom(32 * MIB))
    with pytest.raises(Exhausted, match="No space left to pack"):
        asyncio.run(pack(folder, small / "image", "none", names=("blob",)))
    assert list(small.iterdir()) == []


def test_a_built_busybox_gets_an_address_and_stops_when_asked() -> None:
    async def scenario(runtime: Runtime, folder: Path) -> None:
        for words in ("link add br0 type bridge", "addr add 10.199.0.1/24 dev br0", "link set br0 up"):
            subprocess.run(["ip", *words.split()], check=True)
        leases = subprocess.Popen([*DNSMASQ.split()[:-1], f"--dhcp-leasefile={folder}/leases"])
        try:
            await busybox_boots(runtime, folder)
        finally:
            await runtime.kill_container("c1")
            leases.terminate()
            leases.wait()

    in_namespaces(scenario)


async def busybox_boots(runtime: Runtime, folder: Path) -> None:
    store = ImageStore(folder)
    await build_busybox(folder / "image")
    async with store.upload() as upload:
        await upload.add(whole(folder / "image"))
        image = (await upload.finish()).files.fingerprint
    driver = Dir(Pool("local", folder, {}), runtime.mounts)
    await driver.create_pool()
    await driver.ensure_image(image, lambda target: store.unpack(image, target))
    await driver.create_from_image(Volume("c1"), image)
    seen = await driver.mount(Volume("c1"), Idmap(1_000_000))
    await runtime.start_container(
        ContainerSpec(
            "c1", str(seen.path), Idmap(1_000_000), rootfs_is_mapped=seen.mapped, seccomp=seccomp.policy(),
            nics=(Nic("eth0", link="br0", host_name="veth1"),),
        )
    )  # fmt: skip
    async with asyncio.timeout(10):
        while not re.search(r"inet 10\.199\.0\.\d+/24", await sh(runtime, "c1", "ip addr show eth0")):
            await asyncio.sleep(0.05)
        while "nameserver 10.199.0.1" not in await sh(runtime, "c1", "cat /etc/resolv.conf 2>&1"):
            await asyncio.sleep(0.05)
    assert "default via 10.199.0.1" in await sh(runtime, "c1", "ip route")
    assert await sh(runtime, "c1", "hostname") == "c1\n"
    await runtime.shutdown_container("c1", 10)  # raises if it must be killed
    await driver.delete_pool()


async def whole(path: Path) -> AsyncIterator[bytes]:
    yield path.read_bytes()
