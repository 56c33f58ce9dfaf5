"""A libnvidia-ml.so.1 that answers for made-up cards, so that the real binding is used: `nvml: true`.

The library is `nvml_stub.c`, built where it is wanted; what it answers stands in a text file beside it, and
changes when that does. Other programs may use it too: LD_LIBRARY_PATH is the folder they are in.
"""

import hashlib
import logging
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shutil import which

from cluster.errors import Invalid
from lxdpy.host.gpu.fake_spec import FakeGpu

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("nvml_stub.c")
COMPILERS = ("cc", "gcc", "clang")
DRIVER_VERSION = "550.54.14"
CUDA_VERSION = "12.4"
TESLA = 2  # NVML's number of the brand
LEVELS = {"pix": 10, "pxb": 20, "phb": 30, "node": 40}  # of the common ancestor of two cards
NVLINKS = 2  # between any two cards that have some; more would make no difference to us


def build(folder: Path) -> Path | None:
    """The library, built in `folder` unless it is there already; None without a C compiler, which is logged.

    Raises Invalid with the compiler's words. Takes half a second.
    """
    source = SOURCE.read_bytes()
    library = folder / f"nvml-{hashlib.sha256(source).hexdigest()[:12]}.so"
    if library.exists():
        return library
    compiler = next((found for name in COMPILERS if (found := which(name))), None)
    if compiler is None:
        log.warning(
            "no C compiler, so no NVML is built: made-up NVIDIA cards are read from the file directly"
        )
        return None
    fresh = library.with_suffix(".new")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(fresh), str(SOURCE), "-lpthread", "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Invalid(f"Fake GPUs: {compiler} cannot build {SOURCE.name}: {done.stderr.strip()[-500:]}")
    fresh.replace(library)
    return library


def cards(gpus: Iterable[FakeGpu], minors: Mapping[str, int]) -> str:
    """The text it answers from; `minors` of /dev/nvidiaN by uuid."""
    ours = [gpu for gpu in gpus if gpu.vendor == "nvidia"]
    major, minor = CUDA_VERSION.split(".")
    lines = [f"driver {DRIVER_VERSION}", f"cuda {int(major) * 1000 + int(minor) * 10}"]
    for gpu in ours:
        lines += _card(gpu, minors[gpu.uuid], {other.uuid: other.pci for other in ours})
    return "\n".join(lines) + "\n"


def _card(gpu: FakeGpu, minor: int, address: Mapping[str, str]) -> Iterator[str]:
    busy, figures = round((gpu.busy or 0) * 100), gpu.figures
    yield f"gpu {gpu.uuid}"
    yield f"name {gpu.model}"
    yield f"pci 0000{gpu.pci} 0x{gpu.product.product_id}10de"
    yield f"minor {minor}"
    yield f"numa {gpu.numa}"
    yield f"brand {TESLA}"
    yield f"capability {gpu.product.architecture.replace('.', ' ')}"
    yield f"memory {gpu.memory}"
    yield f"load {busy} {figures.temperature:.0f} {(figures.power or 0) * 1000:.0f}"
    yield from _ailments(gpu)
    for other, kind in gpu.links.items():
        if kind == "nvlink" and other in address:
            yield from [f"link 0000{address[other]}"] * NVLINKS
        elif kind in LEVELS:
            yield f"near {other} {LEVELS[kind]}"
    for process in gpu.processes:
        yield f"process {process.pid} {process.memory}"
    for part in gpu.mig:
        yield f"mig {part.uuid} {part.profile} {part.gi} {part.ci} {part.memory >> 20}"


def _ailments(gpu: FakeGpu) -> Iterator[str]:
    """A health that the file just states has no word in NVML: it is one of rows that cannot be remapped."""
    signs = gpu.signs
    failed = signs.remapping == "failed" or signs.said == "failed"
    pending = signs.remapping == "pending" or signs.said in ("suspect", "recovering")
    if signs.lost:
        yield "lost 1"
    yield f"ecc {signs.ecc}"
    yield f"rows 0 {int(pending or failed)} {int(pending)} {int(failed)}"
    if signs.xid:
        yield f"xid {signs.xid}"
