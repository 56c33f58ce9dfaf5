"""Config keys every storage pool has, whatever its driver: `POOL | driver.pool_keys` is what a pool takes."""

import msgspec

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.volume import VOLUME


def volume_defaults(volume: KeyTable) -> list[Key]:
    """`volume.<key>` for each key of a volume that a pool may preset for its volumes."""
    return [
        msgspec.structs.replace(
            key, name=f"volume.{key.name}", default=None, doc=f"What new volumes get for `{key.name}`."
        )
        for key in volume.keys
        if "*" not in key.name
    ]


POOL = KeyTable("storage pool", [
    Key(name="source", per_member=True,
        doc="Folder, device or data set the pool is made on; unset has one made."),
    Key(name="user.*", live=True, doc="Anything you like."),
    Key(name="volatile.*", per_member=True,
        doc="The daemon's own notes on the pool; not for setting by hand."),
    *volume_defaults(VOLUME),
])  # fmt: skip
