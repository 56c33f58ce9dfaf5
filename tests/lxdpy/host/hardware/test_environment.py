"""What GET /1.0 says of the kernel and the system."""

import asyncio
from pathlib import Path

import pytest

from lxdpy.host.hardware import environment
from lxdpy.host.hardware.files import numbers
from tests.lxdpy.host.hardware.tree import built, write


def test_features_follow_the_kernel_and_what_it_offers(tmp_path: Path) -> None:
    root = built(tmp_path)
    assert environment.kernel(root)["kernel_version"] == "6.1.0-test"
    new = environment.kernel_features(root)
    assert (new["idmapped_mounts"], new["seccomp_listener"], new["shiftfs"]) == ("true", "true", "false")
    write(root.proc / "sys/kernel", osrelease="5.11.9-generic")
    write(root.proc / "sys/kernel/seccomp", actions_avail="kill_process allow")
    old = environment.kernel_features(root)
    assert (old["idmapped_mounts"], old["seccomp_listener"], old["uevent_injection"]) == (
        "false",
        "false",
        "true",
    )


@pytest.mark.parametrize(
    ("version", "some", "newest"),
    [
        ("5.0.2", "true", "true"),
        ("4.0.12", "true", "false"),
        ("3.0.4", "false", "false"),
        ("", "false", "false"),
    ],
)
def test_liblxcs_features_follow_its_version(version: str, some: str, newest: str) -> None:
    found = environment.lxc_features(version)
    assert (found["pidfd"], found["core_scheduling"]) == (some, newest)


def test_the_system_is_told_with_and_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "os").write_text('PRETTY_NAME="Debian 12"\nNAME="Debian GNU/Linux"\nVERSION_ID=12\n')
    assert environment.operating_system(tmp_path / "os") == {
        "os_name": "Debian GNU/Linux",
        "os_version": "12",
    }
    assert environment.operating_system(tmp_path / "none") == {"os_name": "", "os_version": ""}


def test_a_program_that_is_not_installed_has_no_version() -> None:
    assert asyncio.run(environment.program_version("lxdpy-no-such-program")) == ""


def test_the_whole_has_lxds_names(tmp_path: Path) -> None:
    found = asyncio.run(environment.environment(built(tmp_path)))
    assert set(found) == {
        "kernel", "kernel_version", "kernel_architecture", "kernel_features", "lxc_features", "os_name",
        "os_version", "architectures", "firewall", "driver", "driver_version",
    }  # fmt: skip
    assert (found["driver"], found["firewall"]) == ("lxc", "nftables")


def test_the_dir_driver_is_always_there() -> None:
    found = asyncio.run(environment.storage_drivers())
    assert {"Name": "dir", "Version": "1", "Remote": False} in found


def test_the_kernels_lists_are_read() -> None:
    assert numbers("0-3,8") == [0, 1, 2, 3, 8]
    assert numbers("") == []
