import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import Invalid
from lxdpy.host.devices.driver import Attachment, Mount, Nic, Node
from lxdpy.host.lxc.spec import ContainerSpec
from lxdpy.host.storage.driver import RootfsMount
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.spec import cpus_of, idmap_of, is_native_only, limits_of, raw_lines, spec_of

ROW = Instance("default", "c1", "u", "m", idmap=2)


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs 2 to 5 are there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 3, 4})


@pytest.mark.usefixtures("cpus")
@pytest.mark.parametrize(
    ("wanted", "given"),
    [("", ""), ("2-3", "2,3"), ("3,5", "3,5"), ("0-99", "2,3,4,5"), ("5-9", "5"), ("99", "2,3,4,5")],
)
def test_of_the_cpus_named_those_that_are_there_are_given(wanted: str, given: str) -> None:
    assert cpus_of(ROW, {"limits.cpu": wanted}) == given


@pytest.mark.usefixtures("cpus")
def test_cpus_of_which_none_is_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match=r"limits.cpu=0-1: this member has none .* from 2 to 5"):
        cpus_of(ROW, {"limits.cpu": "0-1"})


@pytest.mark.usefixtures("cpus")
def test_a_number_of_cpus_is_met_and_not_by_the_same_ones_for_all() -> None:
    rows = [Instance("default", f"c{number}", "u", "m") for number in range(20)]
    given = [cpus_of(row, {"limits.cpu": "2"}) for row in rows]
    assert {len(one.split(",")) for one in given} == {2}
    assert {cpu for one in given for cpu in one.split(",")} == {"2", "3", "4", "5"}
    assert given == [cpus_of(row, {"limits.cpu": "2"}) for row in rows], "the same after a restart"


def test_limits_are_in_the_kernels_units() -> None:
    limits = limits_of(ROW, {
        "limits.memory": "1GiB", "limits.memory.enforce": "soft", "limits.memory.swap": "false",
        "limits.processes": "50", "limits.cpu.allowance": "25ms/100ms",
    })  # fmt: skip
    assert (limits.memory, limits.memory_soft, limits.swap, limits.processes) == (1 << 30, True, False, 50)
    assert limits.cpu_quota == (25_000, 100_000)
    assert limits_of(ROW, {"limits.cpu.allowance": "50%"}).cpu_shares == 512
    assert limits_of(ROW, {"limits.cpu.priority": "4"}).cpu_shares == 1018
    assert limits_of(ROW, {"limits.cpu.priority": "0", "limits.cpu.allowance": "50%"}).cpu_shares == 502
    several = limits_of(ROW, {
        "limits.memory.swap.priority": "3", "limits.disk.priority": "0", "limits.hugepages.2MB": "4MiB",
    })  # fmt: skip
    assert (several.swappiness, several.disk_priority, several.hugepages) == (67, 0, (("2MB", 4 << 20),))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert limits_of(ROW, {"limits.memory": "50%"}).memory == total * 50 // 100
    nothing = limits_of(ROW, {})
    assert (nothing.memory, nothing.processes, nothing.cpu_quota, nothing.cpu_shares) == (0, 0, None, 0)


def test_an_instance_has_a_range_of_ids_of_its_own_unless_it_is_privileged() -> None:
    private = idmap_of(ROW, {})
    assert private is not None
    assert (private.base, private.size) == (1_000_000 + 2 * 65_536, 65_536)
    assert idmap_of(ROW, {"security.privileged": "true"}) is None


def spec(config: dict[str, str], *attached: Attachment, **row: Any) -> ContainerSpec:
    made = Instance("lab", "c1", "u", "m", **row)
    return spec_of(made, config, RootfsMount(Path("/pool/c1"), mapped=True), attached, "")


def test_what_devices_bring_is_joined() -> None:
    control = Node(path="/dev/nvidiactl", major=195, minor=255)
    one = Attachment(
        nodes=(Node(path="/dev/nvidia0", major=195, minor=0), control), environment={"VISIBLE": "a"}
    )
    two = Attachment(
        nodes=(Node(path="/dev/nvidia1", major=195, minor=1), control), environment={"VISIBLE": "b"}
    )
    three = Attachment(
        mounts=(Mount(source="/etc", target="/mnt/etc", readonly=True, directory=True),),
        nics=(Nic(name="eth0", link="veth1"),),
        lxc=(("lxc.cap.keep", "chown"),),
    )
    made = spec({"environment.VISIBLE": "mine", "environment.A": "1"}, one, two, three)
    assert [node.path for node in made.devices] == ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia1"]
    assert made.environment == {"VISIBLE": "a,b", "A": "1"}, "a user's is no match for a device's"
    assert [(mount.target, mount.options) for mount in made.mounts] == [("mnt/etc", "bind,create=dir,ro")]
    assert [nic.name for nic in made.nics] == ["eth0"]
    assert made.raw == (("lxc.cap.keep", "chown"),)
    assert (made.name, made.hostname) == ("lab_c1", "c1")


def test_keys_that_pass_through_lose_their_prefix() -> None:
    config = {
        "limits.kernel.nofile": "3000", "linux.sysctl.net.core.somaxconn": "9", "environment.X": "",
        "raw.lxc": "# a comment\n\nlxc.tty.max = 2\n", "security.nesting": "true",
    }  # fmt: skip
    made = spec(config, architecture="aarch64")
    assert (made.prlimits, made.sysctls) == ({"nofile": "3000"}, {"net.core.somaxconn": "9"})
    assert (made.raw, made.environment) == ((("lxc.tty.max", "2"),), {})
    assert (made.nesting, made.architecture) == (True, "aarch64")


@pytest.mark.parametrize("text", ["lxc.tty.max", "tty.max = 2", "= 2"])
def test_raw_lines_that_are_none_of_lxcs_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"raw\.lxc"):
        raw_lines(text)


def test_what_several_devices_bring_is_there_once() -> None:
    library = Mount(source="/lib/a.so", target="/lib/a.so", directory=False, common=True)
    part = Attachment(mounts=(library,), environment={"SEEN": "a", "DRIVER": "550"})
    other = Attachment(mounts=(library,), environment={"SEEN": "b", "DRIVER": "550"})
    spec = spec_of(ROW, {}, RootfsMount(Path("/r"), mapped=True), [part, other], "")
    assert len(spec.mounts) == 1
    assert spec.environment == {"SEEN": "a,b", "DRIVER": "550"}


def test_an_instance_made_of_32_bit_programs_cannot_have_their_calls_refused() -> None:
    assert is_native_only(ROW, {"security.syscalls.blacklist_compat": "true"})
    assert not is_native_only(ROW, {})
    old = msgspec.structs.replace(ROW, architecture="i686")
    assert not is_native_only(old, {"security.syscalls.deny_compat": "false"})
    with pytest.raises(Invalid, match="deny_compat"):
        is_native_only(old, {"security.syscalls.deny_compat": "true"})
