"""Kernel modules that an instance needs of its host: `linux.kernel_modules`."""

from pathlib import Path

from cluster.errors import Error, Invalid
from lxdpy.host.run import run

LOADED = Path("/sys/module")  # with those built in that have parameters
LOAD_FOR = 30.0  # seconds


async def ensure(names: tuple[str, ...], loaded: Path = LOADED) -> None:
    """Have them loaded. Idempotent. Raises Invalid, naming the one that cannot be."""
    for name in names:
        if (loaded / name.replace("-", "_")).is_dir():
            continue
        try:
            await run("modprobe", "--use-blacklist", "--", name, timeout=LOAD_FOR)
        except Error as failure:
            raise Invalid(
                f"linux.kernel_modules: {name} could not be loaded: {failure.message}",
                key="linux.kernel_modules", value=name,
            ) from None  # fmt: skip
