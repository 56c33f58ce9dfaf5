"""A volume's files as a stream: a tarball of `rootfs/`, `metadata.yaml` and `templates/`, ids as on disk.

It fits any driver at the other end; drivers of one kind may know a shorter way.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from lxdpy.host import pipe
from lxdpy.host.image_archive import ATTRIBUTES
from lxdpy.host.storage.driver import StorageDriver, Volume
from lxdpy.host.storage.layout import there

PARTS = ("metadata.yaml", "templates", "rootfs")


@asynccontextmanager
async def opened(driver: StorageDriver, volume: Volume) -> AsyncIterator[Path]:
    """Its folder, with the files as on disk at `rootfs`. Of a stopped instance, or a snapshot.

    Two at once of the same volume would close it for each other.
    """
    await driver.mount(volume, None)
    try:
        yield driver.path(volume)
    finally:
        await driver.unmount(volume)


async def pack(
    folder: Path, below: str = "", *, whole: bool = False, parts: Sequence[str] = PARTS
) -> AsyncGenerator[bytes, None]:
    """The tarball of an opened volume; `whole` is all of a folder, as a custom volume is one.

    `below` is put in front of all names, and of what hard links point to.
    """
    names = ["."] if whole else [name for name in parts if there(folder / name)] or ["."]
    words = (
        "--create",
        "--file=-",
        "--one-file-system",
        "--warning=no-file-ignored",
        f"--directory={folder}",
    )
    old, new = (r"^\.", below) if names == ["."] else ("^", f"{below}/")
    moved = (f"--transform=s,{old},{new},rSh",) if below else ()
    async with aclosing(pipe.output("tar", *words, *moved, *ATTRIBUTES, "--", *names)) as chunks:
        async for chunk in chunks:
            yield chunk


async def unpack(chunks: AsyncIterable[bytes], folder: Path) -> None:
    """Into an empty folder; the other end of `pack`."""
    words = ("--extract", "--file=-", "--preserve-permissions", "--same-owner", f"--directory={folder}")
    await pipe.feed(chunks, "tar", *words, *ATTRIBUTES)
