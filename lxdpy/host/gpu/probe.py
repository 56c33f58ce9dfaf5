"""What a vendor's library knows of cards beyond sysfs: memory, health, load, links.

NVML speaks of the machine it runs on, whatever root one would like to look at. So it is asked for the real
root only; a tree that is not the host's brings the answers along, in a file or as a library of its own.
"""

import msgspec

from cluster.errors import Invalid
from lxdpy.host.gpu import nvml
from lxdpy.host.gpu.drm import text
from lxdpy.host.gpu.facts import Facts
from lxdpy.host.gpu.nvidia import information
from lxdpy.host.paths import HostRoot

RECORDED = "driver/gpu-facts.json"  # below proc, in trees that are not the host's
LIBRARY = "driver/nvml/libnvidia-ml.so.1"  # likewise: an NVML that answers for this tree


def facts(root: HostRoot) -> dict[str, Facts]:
    """By PCI address. Empty where no library answers. Raises Invalid for a file that cannot be read."""
    if root == HostRoot():
        return nvml.facts(root)
    library = root.proc / LIBRARY
    answered = nvml.read(nvml.binding(library), information(root)) if library.exists() else {}
    recorded = text(root.proc / RECORDED)
    try:
        return answered | msgspec.json.decode(recorded or "{}", type=dict[str, Facts])
    except msgspec.DecodeError as wrong:
        raise Invalid(f"{root.proc / RECORDED}: {wrong}") from None
