"""NVIDIA's libraries in real containers: by CDI specs, and by LXC's hook for a program that is made up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_try, running
from integration.instances import busybox, clear, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
CARDS = """\
gpus:
- {vendor: nvidia, uuid: GPU-one, pci: "0000:01:00.0"}
- {vendor: nvidia, uuid: GPU-two, pci: "0000:02:00.0"}
- {vendor: nvidia, uuid: GPU-cut, pci: "0000:03:00.0", mig: [1g.5gb, 1g.5gb]}
- {vendor: amd, uuid: 9f3c0e1d2b4a5968, pci: "0000:83:00.0"}
cdi: true
"""
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so"
PROGRAM = Path("/usr/bin/nvidia-container-cli")
RECORDER = """\
#!/bin/sh
for rootfs; do :; done
mkdir -p "$rootfs/tmp"
echo "$@" >"$rootfs/tmp/asked"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Cards with specs on n1, none on n2, which is asked."""
    with running(members=2, gpus=0) as made:
        one, two = made.members
        busybox(two)
        one.gpus.write_text(CARDS)
        eventually(lambda: len(gpus(two)) == 4, within=60)
        yield made


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    clear(cluster.members[0])


@pytest.fixture
def program() -> Iterator[None]:
    """Where NVIDIA's own is on other hosts; it leaves in the container what it was asked."""
    assert not PROGRAM.exists(), "this host has the real one"
    PROGRAM.write_text(RECORDER)
    PROGRAM.chmod(0o755)
    yield
    PROGRAM.unlink()


def gpus(member: Member) -> dict[str, dict[str, Any]]:
    return {one["uuid"]: one for one in member.ask("GET", "/1.0/gpus?recursion=1")}


def holders(member: Member, uuid: str) -> list[str]:
    return [one["instance"] for one in gpus(member)[uuid]["holders"]]


def files(member: Member, name: str) -> set[str]:
    """GPU files below /dev."""
    found = sh(member, name, "find /dev -name 'nvidia*' -type c; ls /dev/dri /dev/kfd 2>/dev/null").split()
    return {Path(word).name for word in found} - {"", "dri:", "kfd:"}


def test_a_card_is_had_by_its_cdi_name_with_libraries_and_is_counted(
    cluster: Cluster, tmp_path: Path
) -> None:
    _, two = cluster.members
    lxc(two, "init", "busybox", "c1", "--target", "n1")
    lxc(two, "config", "device", "add", "c1", "card", "gpu", "id=nvidia.com/gpu=1", "sharing=exclusive")
    inittab = tmp_path / "inittab"
    first = f"::sysinit:/bin/cp -a {LIBRARY}.1 /root/\n"  # the first that its init does
    inittab.write_text(first + lxc(two, "file", "pull", "c1/etc/inittab", "-"))
    lxc(two, "file", "push", str(inittab), "c1/etc/inittab")
    lxc(two, "start", "c1")
    assert sh(two, "c1", f"readlink {LIBRARY}.1") == sh(two, "c1", "readlink /root/libcuda.so.1") != ""
    assert not sh(two, "c1", "ls -A /dev | grep finished"), "the script came to its end, which was seen"
    assert files(two, "c1") >= {"nvidia1", "nvidiactl", "nvidia-uvm"}
    assert "nvidia0" not in files(two, "c1")
    assert "No such device or address" in sh(two, "c1", "dd if=/dev/nvidia1 count=1")
    assert holders(two, "GPU-two") == ["c1"]
    assert sh(two, "c1", f"cat {LIBRARY}.1").strip() == "a driver's library"
    assert "Read-only" in sh(two, "c1", f"touch {LIBRARY}.1 2>&1")
    assert sh(two, "c1", "echo $NVIDIA_VISIBLE_DEVICES").strip() == "GPU-two"
    taken = lxc_try(two, "launch", "busybox", "c2", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-two")
    assert taken.status
    assert holders(two, "GPU-two") == ["c1"]


def test_all_is_every_card_of_the_vendor_and_leaves_with_its_files(cluster: Cluster) -> None:
    _, two = cluster.members
    lxc(two, "init", "busybox", "c1", "--target", "n1")
    lxc(two, "start", "c1")
    lxc(two, "config", "device", "add", "c1", "cards", "gpu", "id=nvidia.com/gpu=all")
    assert [holders(two, uuid) for uuid in ("GPU-one", "GPU-two", "GPU-cut")] == [["c1"], ["c1"], []]
    assert files(two, "c1") >= {"nvidia0", "nvidia1"}
    assert sh(two, "c1", f"cat {LIBRARY}.1").strip() == "a driver's library"
    lxc(two, "config", "device", "add", "c1", "amd", "gpu", "id=amd.com/gpu=9f3c0e1d2b4a5968")
    assert "/dev/kfd" in sh(two, "c1", "ls /dev/kfd")
    lxc(two, "config", "device", "remove", "c1", "cards")
    assert holders(two, "GPU-one") == holders(two, "GPU-two") == []
    assert not [name for name in files(two, "c1") if name.startswith("nvidia")]
    assert sh(two, "c1", f"cat {LIBRARY}.1 2>/dev/null").strip() == ""
    assert holders(two, "9f3c0e1d2b4a5968") == ["c1"]


def test_a_mig_device_has_a_cdi_name_too(cluster: Cluster) -> None:
    _, two = cluster.members
    lxc(two, "init", "busybox", "c1", "--target", "n1")
    lxc(two, "config", "device", "add", "c1", "part", "gpu", "gputype=mig", "id=nvidia.com/gpu=2:1")
    lxc(two, "start", "c1")
    [part] = [one for one in gpus(two)["GPU-cut"]["mig"] if one["holders"]]
    assert part["cdi"] == ["nvidia.com/gpu=2:1"]
    assert len([name for name in files(two, "c1") if name.startswith("nvidia-cap")]) == 2


def test_what_no_spec_has_is_refused_with_what_there_is(cluster: Cluster) -> None:
    _, two = cluster.members
    lxc(two, "init", "busybox", "c1", "--target", "n1")
    refused = lxc_try(two, "config", "device", "add", "c1", "card", "gpu", "id=nvidia.com/gpu=7")
    assert "no GPU matches id=nvidia.com/gpu=7; there are: " in refused.err
    assert "nvidia.com/gpu=0" in refused.err
    refused = lxc_try(two, "config", "device", "add", "c1", "card", "gpu", "id=acme.com/gpu=7")
    assert "a CDI device such as nvidia.com/gpu=0" in refused.err


@pytest.mark.usefixtures("program")
def test_the_hook_for_nvidias_program_is_told_the_granted_gpus(cluster: Cluster) -> None:
    _, two = cluster.members
    words = ("-c", "nvidia.runtime=true", "-c", "nvidia.driver.capabilities=compute,video")
    card = ("-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-two", "-c", "nvidia.require.cuda=>=12.0")
    lxc(two, "launch", "busybox", "c1", *words, *card)
    asked = sh(two, "c1", "cat /tmp/asked").split()
    assert {"--device=GPU-two", "--compute", "--video", "--require=cuda>=12.0", "--user"} <= set(asked)
    assert "--utility" not in asked
    lxc(two, "launch", "busybox", "c2", *words, "--target", "n1")
    assert "--device" not in sh(two, "c2", "cat /tmp/asked")


def test_without_nvidias_program_nothing_starts_and_no_gpu_is_held(cluster: Cluster) -> None:
    _, two = cluster.members
    assert not PROGRAM.exists()
    words = ("-c", "nvidia.runtime=true", "-c", "limits.gpu=1")
    refused = lxc_try(two, "launch", "busybox", "c1", *words)
    assert "nvidia-container-cli is not installed on this member" in refused.err
    assert not [uuid for uuid in gpus(two) if holders(two, uuid)]
    for value in ("compute\n,utility", "compute;reboot"):
        wrong = lxc_try(two, "config", "set", "c1", f"nvidia.driver.capabilities={value}")
        assert "a list (by ',') of all, compute" in wrong.err
