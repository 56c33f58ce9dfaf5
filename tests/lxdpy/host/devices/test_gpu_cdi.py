import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid, Unsupported
from lxdpy.host.devices.driver import Attachment, Finish, Mount, Seat
from lxdpy.host.devices.gpu_cdi import NoSuchSpec
from lxdpy.host.devices.gpu_cdi_hooks import finish_of
from lxdpy.host.devices.gpu_mig import GpuMig
from lxdpy.host.devices.gpu_options import GpuGone
from lxdpy.host.devices.gpu_physical import GpuPhysical
from lxdpy.host.gpu.cdi import Hook
from lxdpy.host.gpu.fake_cdi import CUDA, LIBRARIES
from lxdpy.host.gpu.inventory import discover, mig_nodes
from lxdpy.host.paths import HostRoot
from tests.lxdpy.host.gpu.test_cdi import host

LIBRARY = f"{LIBRARIES}/{CUDA}"


def start(root: HostRoot, name: str, *gpus: str, **options: str) -> Attachment:
    seat = Seat(instance="default/c1", name="gpu", options={"type": "gpu", "id": name, **options}, gpus=gpus)
    driver = GpuMig if options.get("gputype") == "mig" else GpuPhysical
    return asyncio.run(driver(root, "n1").start(seat))


def test_a_container_gets_what_the_spec_says(tmp_path: Path) -> None:
    found = start(host(tmp_path), "nvidia.com/gpu=0", "GPU-one")
    assert {node.path for node in found.nodes} == {
        "/dev/nvidia0", "/dev/dri/card0", "/dev/dri/renderD128",
        "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset",
    }  # fmt: skip
    assert found.mounts == (
        Mount(
            source=f"{tmp_path}{LIBRARY}", target=LIBRARY, directory=False, readonly=True, common=True,
            options=("nosuid", "nodev"),
        ),
    )  # fmt: skip
    assert found.environment == {"NVIDIA_VISIBLE_DEVICES": "GPU-one"}, "and not the spec's `void`"
    assert found.finish == Finish(
        links=((CUDA, f"{LIBRARIES}/libcuda.so.1"),), libraries=(LIBRARIES,), modes=(("755", "/dev/dri"),)
    )


def test_cards_that_were_not_granted_are_left_out_of_all(tmp_path: Path) -> None:
    root = host(tmp_path)
    nodes = {node.path for node in start(root, "nvidia.com/gpu=all", "GPU-cut").nodes}
    assert "/dev/nvidia0" not in nodes
    assert "/dev/nvidiactl" in nodes


def test_a_part_comes_with_its_own_capabilities(tmp_path: Path) -> None:
    root = host(tmp_path)
    card = next(gpu for gpu in discover(root, "n1") if gpu.mig)
    other, part = (
        {node.path for node in mig_nodes(root, card, one)} - {node.path for node in card.nodes}
        for one in card.mig
    )
    nodes = {node.path for node in start(root, "nvidia.com/gpu=1:1", card.mig[1].uuid, gputype="mig").nodes}
    assert len(part) == 2
    assert part | {"/dev/nvidia1"} < nodes
    assert not other & nodes


def test_what_was_given_is_taken_though_the_spec_is_gone(tmp_path: Path) -> None:
    root = host(tmp_path)
    started = start(root, "nvidia.com/gpu=0", "GPU-one")
    (tmp_path / "etc/cdi/nvidia.yaml").unlink()
    seat = Seat(instance="default/c1", name="gpu", options={"type": "gpu"}, volatile=started.volatile)
    taken = asyncio.run(GpuPhysical(root, "n1").detach(seat))
    assert [node.path for node in taken.nodes] == [node.path for node in started.nodes]
    assert [mount.target for mount in taken.mounts] == [LIBRARY]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    root = host(tmp_path)
    with pytest.raises(NoSuchSpec, match=r"/etc/cdi or /var/run/cdi has the CDI device nvidia\.com/gpu=9"):
        start(root, "nvidia.com/gpu=9", "GPU-one")
    with pytest.raises(GpuGone):
        start(root, "nvidia.com/gpu=0", "GPU-gone")
    (tmp_path / LIBRARY[1:]).unlink()
    with pytest.raises(Invalid, match=f"{LIBRARY}: no such file or folder"):
        start(root, "nvidia.com/gpu=0", "GPU-one")


def test_the_name_is_checked_where_it_is_asked_for(tmp_path: Path) -> None:
    driver = GpuPhysical(host(tmp_path), "n1")
    for name in ("nvidia.com/gpu=0", "amd.com/gpu=all", "intel.com/gpu=GPU-1.a:b", "3"):
        driver.check({"type": "gpu", "id": name})
    for name in ("nvidia.com/gpu=", "acme.com/gpu=0", "nvidia.com/gpu=0\n", "nvidia.com/gpu=../x", "x"):
        with pytest.raises(Invalid, match="a CDI device such as"):
            driver.check({"type": "gpu", "id": name})
    GpuMig(host(tmp_path), "n1").check({"type": "gpu", "gputype": "mig", "id": "nvidia.com/gpu=0:1"})


def hook(*words: str) -> Hook:
    return Hook("createContainer", "/usr/bin/nvidia-ctk", ("nvidia-ctk", *words))


def test_hooks_are_read_in_both_spellings() -> None:
    assert finish_of([
        hook("hook", "create-symlinks", "--link", "a.so::/usr/lib/b.so", "--link=c::/d"),
        hook("update-ldcache", "--folder", "/usr/lib", "--folder=/opt/lib"),
        hook("hook", "update-ldcache", "--ldconfig-path", "/sbin/ldconfig", "--folder", "/usr/lib"),
        hook("hook", "enable-cuda-compat", "--host-driver-version=550.54.14"),
    ]) == Finish(
        links=(("a.so", "/usr/lib/b.so"), ("c", "/d")), libraries=("/usr/lib", "/opt/lib")
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("format-disk",), (), ("create-symlinks", "--link", "a"), ("chmod", "--mode", "u+s", "--path", "/a"),
     ("update-ldcache", "stray")],
)  # fmt: skip
def test_other_hooks_are_refused_by_name(words: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported, match=r'CDI hook "/usr/bin/nvidia-ctk.*create-symlinks, update-ldcache'):
        finish_of([hook(*words)])
