"""Device type `disk`: the root disk, a volume of a pool, or a path of the host, mounted in the instance.

Mounting volumes on the host is the storage drivers' work: the caller passes where they are as `Seat.source`.
The root disk adds nothing here, for LXC mounts it before anything else.
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import ClassVar, cast

import msgspec

from cluster.errors import Conflict, Invalid
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import absolute_path, boolean, disk_rate, integer, one_of, size
from lxdpy.host import mounts
from lxdpy.host.devices import held
from lxdpy.host.devices.driver import Attachment, Mount, Options, Seat
from lxdpy.host.run import run
from lxdpy.host.throttle import Throttle, block_device

MEMORY = "tmpfs:"  # as a source
ELSEWHERE = ("ceph", "cephfs", "cloud-init", "tmpfs", "tmpfs-overlay")  # before a colon, in LXD's sources
USUAL = ("defaults", "rw", "suid", "dev", "exec", "atime", "diratime")  # as it is anyway
LIMITS = ("limits.max", "limits.read", "limits.write")


class SourceMissing(Conflict):
    """The path to be mounted does not exist on this host."""


class Disk:
    """See DeviceDriver."""

    type: ClassVar[str] = "disk"
    hotplug: ClassVar[bool] = True
    updatable: ClassVar[frozenset[str]] = frozenset({*LIMITS, "size", "boot.priority"})
    options: ClassVar[KeyTable] = KeyTable("disk device", [
        Key(name="type", doc="`disk`."),
        Key(name="path", doc="Where the instance sees it; `/` for its root disk.", parse=absolute_path),
        Key(name="source", doc="Path of the host, with `pool` a volume, or `tmpfs:`; unset for the root."),
        Key(name="pool", doc="Storage pool that the volume, or the root disk, is in."),
        Key(name="size", doc="Most the disk may hold; for the root disk and `tmpfs:`.", parse=size),
        Key(name="readonly", doc="Whether the instance may only read.", parse=boolean, default="false"),
        Key(
            name="required",
            doc="Whether the instance does not start when the source is missing.",
            parse=boolean,
            default="true",
        ),
        Key(name="optional", doc="Older word for `required` turned round.", parse=boolean, default="false"),
        Key(
            name="shift",
            doc="Whether owners on the host's path are shown as the instance's own, root as root.",
            parse=boolean,
            default="false",
        ),
        Key(
            name="recursive",
            doc="Whether what is mounted below the source is seen too.",
            parse=boolean,
            default="false",
        ),
        Key(
            name="propagation",
            doc="How later mounts below it pass between host and instance.",
            parse=one_of(
                "private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"
            ),
        ),
        Key(name="raw.mount.options", doc="Further mount options, by commas."),
        Key(name="limits.read", doc="Most to read in a second, in bytes or `iops`.", parse=disk_rate),
        Key(name="limits.write", doc="Most to write in a second, in bytes or `iops`.", parse=disk_rate),
        Key(name="limits.max", doc="Both `limits.read` and `limits.write`.", parse=disk_rate),
        Key(
            name="boot.priority",
            doc="Accepted for profiles shared with virtual machines; of no effect.",
            parse=integer(0),
        ),
    ])  # fmt: skip

    def check(self, options: Options) -> None:
        self.options.check(options)
        path, source = options.get("path"), options.get("source", "")
        if not path:
            raise _invalid('"path" is needed: where the instance is to see it, such as /mnt/data', "path")
        if ".." in path.split("/"):
            raise _invalid(f'"path={path}" must not climb with ".."', "path")
        if is_root(options):
            _check_root(options)
            return
        if is_memory(options):
            _check_memory(options)
            return
        if options.get("size"):
            raise _invalid(f'"size={options["size"]}" is only for the root disk and {MEMORY}', "size")
        if not source:
            raise _invalid(
                '"source" is needed for all but the root disk: a path of the host or a volume', "source"
            )
        if not options.get("pool"):
            _check_host_path(source)
        elif "/" in source.removeprefix("custom/"):
            raise _invalid(f'"source={source}" is not the name of a volume in the pool', "source")

    async def start(self, seat: Seat) -> Attachment:
        """Raises SourceMissing."""
        mount = _mount(seat)
        if mount is None:
            return Attachment()
        if is_memory(seat.options):
            await _mount_memory(seat, mount)
            held_there = msgspec.structs.replace(mount, source=str(_place(seat)), options=_propagation(seat))
            return Attachment(mounts=(held_there,))
        kind = await asyncio.to_thread(_kind, mount.source)  # may hang on a network file system
        if not kind and mount.optional:
            return Attachment()
        if not kind:
            raise _missing(seat, mount)
        if kind != "block":
            mount = msgspec.structs.replace(mount, directory=kind == "directory", options=_bind_options(seat))
        elif seat.folder:
            await _mount_device(seat, mount)
            mount = msgspec.structs.replace(mount, source=str(_place(seat)), options=_propagation(seat))
        if seat.cold and seat.folder and kind != "block":
            # A running container is given its disks by the host's root.
            place, how = _place(seat), {"recursive": mount.recursive, "readonly": mount.readonly}
            await asyncio.to_thread(held.hold, mount.source, place, seat.root_id, **how)
            mount = msgspec.structs.replace(mount, source=str(place))
        return Attachment(mounts=(mount,))

    async def throttles(self, seat: Seat) -> tuple[Throttle, ...]:
        """What its `limits.*` mean for the block device it is on. Raises Invalid if it is on none."""
        wanted = rates(seat.options)
        path = seat.source if seat.options.get("pool") else seat.options.get("source", "")
        if not wanted or not path or not await asyncio.to_thread(os.path.exists, path):
            return ()
        if device := await asyncio.to_thread(block_device, path):
            return (Throttle(device=device, **wanted),)
        key = next(key for key in LIMITS if seat.options.get(key))
        raise _invalid(f'"{key}" needs a block device, and {path} is on none', key)

    async def update(self, seat: Seat, before: Options) -> None:
        """Limits are set for all disks at once (`throttles`), and a root's size is the storage driver's."""
        if is_memory(seat.options) and seat.options.get("size") != before.get("size"):
            await run("mount", "-o", f"remount,{_room(seat)}", "--", _place(seat))

    async def detach(self, seat: Seat) -> Attachment:
        mount = _mount(seat)
        return Attachment(mounts=(mount,) if mount else ())

    async def stop(self, seat: Seat) -> None:
        """The mounts inside are the container's."""
        if seat.folder and not is_root(seat.options):
            await asyncio.to_thread(held.release, _place(seat))


async def missing_source(options: Options) -> str:
    """The path of this host that a disk needs, if nothing is there just now; else ""."""
    if options.get("type") != "disk" or is_root(options) or options.get("pool") or _may_miss(options):
        return ""
    if is_memory(options):
        return ""
    source = options.get("source", "")
    return "" if await asyncio.to_thread(_kind, source) else source


def is_root(options: Options) -> bool:
    """Whether a device is the root disk."""
    path = options.get("path", "")
    return options.get("type") == "disk" and bool(path) and _plain(path) == "/"


def is_memory(options: Options) -> bool:
    """Whether a device is a file system in memory, which is empty at each start."""
    return options.get("source") == MEMORY and not options.get("pool")


def _plain(path: str) -> str:
    """Without doubled slashes and dots; posixpath.normpath keeps "//" as it is."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _check_root(options: Options) -> None:
    if options.get("source"):
        raise _invalid(f'"source={options["source"]}" is not for the root disk', "source")
    if not options.get("pool"):
        raise _invalid('"pool" is needed for the root disk: the storage pool that it is in', "pool")
    for name in ("recursive", "shift", "propagation"):
        if options.get(name):
            raise _invalid(f'"{name}={options[name]}" is not for the root disk', name)


def _check_memory(options: Options) -> None:
    for name in ("shift", "recursive", *LIMITS):
        if options.get(name):
            raise _invalid(f'"{name}={options[name]}" is not for {MEMORY}', name)


def _check_host_path(source: str) -> None:
    kind = source.partition(":")[0]
    if kind in ELSEWHERE:
        raise _invalid(
            f'"source={source}": {kind} is not supported, but a path of the host or a volume of a "pool"',
            "source",
        )
    if not source.startswith("/"):
        raise _invalid(f'"source={source}" is not an absolute path, and a volume needs "pool"', "source")
    if ".." in source.split("/"):
        raise _invalid(f'"source={source}" must not climb with ".."', "source")


def _invalid(message: str, option: str) -> Invalid:
    return Invalid(f"disk device: {message}", key=option)


def _mount(seat: Seat) -> Mount | None:
    """None for the root disk. Whether it is a file is not looked at here."""
    options = seat.options
    if is_root(options):
        return None
    volume = bool(options.get("pool"))
    return Mount(
        source=seat.source if volume else options["source"],
        target=_plain(options["path"]),
        recursive=_on(options, "recursive"),
        readonly=_on(options, "readonly"),
        optional=_may_miss(options),
        # Volumes hold the container's own ids, unshifted; a privileged container sees all ids as they are.
        idmapped=((volume and not seat.unmapped) or _on(options, "shift")) and not seat.privileged,
    )


def _may_miss(options: Options) -> bool:
    return _on(options, "optional") or not _on(options, "required")


def _missing(seat: Seat, mount: Mount) -> SourceMissing:
    if seat.options.get("pool"):
        name = f"{seat.options['pool']}/{seat.options['source']}"
        return SourceMissing(f"Storage volume does not exist on this member: {name}", volume=name)
    return SourceMissing(f"Disk source does not exist on this host: {mount.source}", path=mount.source)


def _words(seat: Seat) -> list[str]:
    return [word for word in seat.options.get("raw.mount.options", "").split(",") if word]


def _propagation(seat: Seat) -> tuple[str, ...]:
    return tuple(word for word in (seat.options.get("propagation"),) if word)


def _bind_options(seat: Seat) -> tuple[str, ...]:
    """Of what is shown by a bind mount. Raises Invalid for those that only a file system itself can have."""
    for word in _words(seat):
        if word not in mounts.ATTRIBUTES and word not in USUAL:
            known = ", ".join((*mounts.ATTRIBUTES, *USUAL))
            raise _invalid(
                f'"raw.mount.options" has "{word}", but what is mounted already takes only: {known}',
                "raw.mount.options",
            )
    return (*(word for word in _words(seat) if word in mounts.ATTRIBUTES), *_propagation(seat))


async def _mount_memory(seat: Seat, mount: Mount) -> None:
    """Mount an empty file system, which is the container's root's, at the disk's own place."""
    await asyncio.to_thread(held.prepare, _place(seat), seat.root_id, directory=True)
    owner = [f"uid={seat.root_id}", f"gid={seat.root_id}", "mode=0755", "nosuid", "nodev"]
    words = [_room(seat), *owner, *(["ro"] if mount.readonly else []), *_words(seat)]
    await run("mount", "-t", "tmpfs", "-o", ",".join(words), "--", "tmpfs", _place(seat))


def _room(seat: Seat) -> str:
    """As an option of tmpfs; the kernel's own bound is half of the host's memory."""
    return f"size={Disk.options.parsed(seat.options, 'size') or '50%'}"


async def _mount_device(seat: Seat, mount: Mount) -> None:
    """Mount the file system of a block device at the disk's own place."""
    await asyncio.to_thread(held.prepare, _place(seat), seat.root_id, directory=True)
    words = [*(["ro"] if mount.readonly else []), *_words(seat)] or ["defaults"]
    await run("mount", "-o", ",".join(words), "--", mount.source, _place(seat))


def rates(options: Options) -> dict[str, int]:
    """As of Throttle; `limits.max` stands for both others."""
    found: dict[str, int] = {}
    for way in ("read", "write"):
        key = "limits.max" if options.get("limits.max") else f"limits.{way}"
        if rate := Disk.options.parsed(options, key):
            number, unit = cast(tuple[int, str], rate)
            found[f"{way}_{unit}"] = number
    return found


def _place(seat: Seat) -> Path:
    return Path(seat.folder) / f"disk.{seat.name}"


def _kind(path: str) -> str:
    """ "directory", "block" for a device with a file system on it, "file", or "" when there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISDIR(mode):
        return "directory"
    return "block" if stat.S_ISBLK(mode) else "file"


def _on(options: Options, name: str) -> bool:
    return bool(Disk.options.parsed(options, name))
