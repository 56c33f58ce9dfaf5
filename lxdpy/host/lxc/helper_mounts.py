"""Mounts that take a process of another shape than the daemon: made by children of the helper."""

from collections.abc import Sequence
from pathlib import Path

from lxdpy.host.idmap import Idmap, Line
from lxdpy.host.lxc.client import HelperClient


class HelperMounts:
    """`lxdpy.host.storage.driver.Mounts`."""

    def __init__(self, helper: HelperClient) -> None:
        self._helper = helper

    async def mount_idmapped(
        self, source: Path, target: Path, idmap: Idmap | None, *, readonly: bool = False
    ) -> None:
        """Mount `source` also at `target`, files on disk keep the container's ids. Idempotent."""
        await self._helper.call(
            "mount_mapped", source=str(source), target=str(target), idmap=_map(idmap), readonly=readonly
        )

    async def mount_overlay(
        self, lower: Sequence[Path], upper_work: Path, target: Path, idmap: Idmap | None
    ) -> None:
        """Mount an overlay of `lower` (topmost first), its changes in `upper_work`/upper. Idempotent.

        ids are mapped, so the spec says `rootfs_is_mapped`. `upper_work`/work is the kernel's own.
        """
        await self._helper.call(
            "mount_overlay", lower=[str(path) for path in lower], upper_work=str(upper_work),
            target=str(target), idmap=_map(idmap),
        )  # fmt: skip

    async def unmount(self, target: Path, *, lazy: bool = False) -> None:
        """Idempotent. Raises Conflict while it is in use, unless `lazy`."""
        await self._helper.call("unmount", target=str(target), lazy=lazy)


def _map(idmap: Idmap | None) -> tuple[list[Line], list[Line]] | None:
    return (idmap.users, idmap.groups) if idmap else None
