from pathlib import Path

import pytest

from cluster.errors import Error, Invalid, Unavailable
from lxdpy.config.instance import INSTANCE
from lxdpy.host.devices.driver import Attachment
from lxdpy.resources.instances import nvidia
from lxdpy.resources.instances.checks import check_config
from lxdpy.resources.instances.spec import environment_of

ON = {"nvidia.runtime": "true"}
GPU = Attachment(environment={"NVIDIA_VISIBLE_DEVICES": "GPU-1"})


def test_the_hook_is_told_of_the_granted_gpus_and_of_no_others() -> None:
    assert environment_of(ON, [GPU]) == {
        "NVIDIA_VISIBLE_DEVICES": "GPU-1",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    assert (
        environment_of(ON | {"environment.NVIDIA_VISIBLE_DEVICES": "all"}, [])["NVIDIA_VISIBLE_DEVICES"]
        == "none"
    )
    asked = ON | {"nvidia.driver.capabilities": "all", "nvidia.require.cuda": ">=12.0"}
    told = environment_of(asked, [GPU])
    assert (told["NVIDIA_DRIVER_CAPABILITIES"], told["NVIDIA_REQUIRE_CUDA"]) == ("all", "cuda>=12.0")
    assert environment_of({"nvidia.require.cuda": ">=12.0"}, []) == {}


def test_a_member_without_nvidias_tool_says_so(tmp_path: Path) -> None:
    hook, tool = tmp_path / "hook", tmp_path / "nvidia-container-cli"
    with pytest.raises(Unavailable, match="hook is not installed"):
        nvidia.lines(hook, str(tmp_path))
    hook.touch()
    with pytest.raises(Unavailable, match="nvidia-container-cli is not installed"):
        nvidia.lines(hook, str(tmp_path))
    tool.touch(mode=0o755)
    assert nvidia.lines(hook, str(tmp_path)) == (("lxc.hook.mount", str(hook)),)


@pytest.mark.parametrize("value", [">=1\nNVIDIA_VISIBLE_DEVICES=all", "$(reboot)", "a;b", "x" * 201, "all\n"])
@pytest.mark.parametrize(
    "key", ["nvidia.require.cuda", "nvidia.require.driver", "nvidia.driver.capabilities"]
)
def test_values_that_could_say_more_than_they_should_are_refused(key: str, value: str) -> None:
    with pytest.raises(Error, match=key):
        INSTANCE.check({key: value})


def test_a_privileged_instance_cannot_have_it() -> None:
    with pytest.raises(Invalid, match="incompatible with privileged"):
        check_config(ON | {"security.privileged": "true"})
