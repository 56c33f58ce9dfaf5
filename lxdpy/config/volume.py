"""Config keys every storage volume has, whatever its driver; the driver's own are on the driver."""

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import boolean, cron, either, expiry, one_of, size, snapshot_pattern

VOLUME = KeyTable("storage volume", [
    Key(name="security.shifted", parse=boolean, needs="a custom volume",
        doc="Show the files' owners to each instance as its own ids; lets differently mapped ones share it."),
    Key(name="security.unmapped", parse=boolean, needs="a custom volume",
        doc="Leave the files' owners as they are on the host."),
    Key(name="size", parse=size, live=True, needs="a driver with quotas",
        doc="Most space the volume may take; unset for the pool's `volume.size`."),
    Key(name="snapshots.expiry", parse=expiry, live=True, needs="a custom volume",
        doc="How long its snapshots are kept, as `1w`; unset for ever."),
    Key(name="snapshots.pattern", parse=snapshot_pattern, default="snap%d", live=True,
        needs="a custom volume", doc="Name of unnamed snapshots; `%d` counts."),
    Key(name="snapshots.schedule", parse=either(one_of("@never"), cron), live=True, needs="a custom volume",
        doc="When to take snapshots, in UTC: five cron fields, or `@daily` and its like."),
    Key(name="user.*", live=True, doc="Anything you like."),
    Key(name="volatile.*", doc="The daemon's own notes on the volume; not for setting by hand."),
])  # fmt: skip
