"""`nvidia.runtime`: NVIDIA's libraries and tools of the host, brought in by LXC's own hook for that.

The hook reads the container's environment and has `nvidia-container-cli` mount them. NVIDIA_VISIBLE_DEVICES
names exactly the GPUs that the instance was granted (its GPU devices set it), or none: never all.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import Invalid, Unavailable
from lxdpy.config.instance import INSTANCE
from lxdpy.resources.profiles.model import Config

HOOK = Path("/usr/share/lxc/hooks/nvidia")
TOOL = "nvidia-container-cli"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # where the hook looks: LXC gives it no PATH
REQUIRED = {
    "nvidia.driver.capabilities": "NVIDIA_DRIVER_CAPABILITIES",
    "nvidia.require.cuda": "NVIDIA_REQUIRE_CUDA",
    "nvidia.require.driver": "NVIDIA_REQUIRE_DRIVER",
}
ABOUT = {"NVIDIA_REQUIRE_CUDA": "cuda", "NVIDIA_REQUIRE_DRIVER": "driver"}
"""What the tool's conditions are of: `>=12.0` is `cuda>=12.0` to it."""
Line = tuple[str, str]


def wanted(config: Config) -> bool:
    """Raises Invalid for an instance that cannot have it."""
    if INSTANCE.parsed(config, "nvidia.runtime") is not True:
        return False
    if INSTANCE.parsed(config, "security.privileged") is True:
        raise Invalid("nvidia.runtime is incompatible with privileged containers", key="nvidia.runtime")
    return True


def environment(config: Config, devices: Mapping[str, str]) -> dict[str, str]:
    """What the hook is told; `devices` is what GPU devices have set."""
    given = {variable: config.get(key) or INSTANCE.default(key) or "" for key, variable in REQUIRED.items()}
    told = {variable: value for variable, value in given.items() if value}
    for variable, about in ABOUT.items():
        if variable in told and not told[variable].startswith(about):
            told[variable] = about + told[variable]
    return {"NVIDIA_VISIBLE_DEVICES": "none", **told, **devices}


def lines(hook: Path = HOOK, path: str = PATH) -> tuple[Line, ...]:
    """Of LXC's configuration. Raises Unavailable where this member cannot."""
    if not hook.is_file() or shutil.which(TOOL, path=path) is None:
        what = TOOL if hook.is_file() else str(hook)
        raise Unavailable(
            f"nvidia.runtime: {what} is not installed on this member (NVIDIA's package "
            "libnvidia-container-tools brings it)",
            key="nvidia.runtime",
        )
    return (("lxc.hook.mount", str(hook)),)
