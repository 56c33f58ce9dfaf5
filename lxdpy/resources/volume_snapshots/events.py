"""PURE: what is told of snapshots and backups of custom volumes when a volume's row has changed."""

from collections.abc import Iterator, Sequence

from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeBackup, VolumeSnapshot
from lxdpy.resources.wire import url


def told(before: StorageVolume, after: StorageVolume) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Action, URL path and context of each event."""
    for part, old, new in (
        ("snapshot", before.snapshots, after.snapshots),
        ("backup", before.backups, after.backups),
    ):
        for verb, name, context in _changed(old, new):
            pool = f"storage-pools/{after.pool}/volumes/custom"
            path = url(pool, after.name, f"{part}s", name, project=after.project)
            yield f"storage-volume-{part}-{verb}", path, context


def _changed(
    before: Sequence[VolumeSnapshot | VolumeBackup], after: Sequence[VolumeSnapshot | VolumeBackup]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Verb, name and context."""
    then = {one.id: one for one in before}
    for one in after:
        old = then.get(one.id)
        if old is None or old == one:
            continue  # it is only begun, or as it was
        if one.status != old.status:
            told_of = {"Creating": "Ready", "Ready": "Deleting"}  # else it never was there
            if told_of.get(old.status) == one.status:
                made = one.status == "Ready"
                yield "created" if made else "deleted", one.name, {"type": "custom"} if made else {}
        elif one.name != old.name:
            yield "renamed", one.name, {"old_name": old.name}
        else:
            yield "updated", one.name, {}
