"""Files that an image has the daemon write into its instances, when they start for the first time, or again.

What is due for its making ("create", "copy", "rename") is noted, and done at the next start: by then config
and devices are what the user wanted. The root file system is written to as it lies on disk, from a process
that has nothing else in reach, with the container's own ids; a link in the place of the file is replaced.
"""

import asyncio
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from cluster.errors import Invalid
from lxdpy.host import instance_files
from lxdpy.host.image_metadata import Template
from lxdpy.host.lxc.files import serve_folder
from lxdpy.host.lxc.templates import Job, rendered
from lxdpy.host.sftp import client
from lxdpy.host.sftp.client import Sftp
from lxdpy.host.sftp.words import Attributes
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import volume_of
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.profiles.model import Config, Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

DUE = "volatile.apply_template"  # the event in an instance's life that its next start makes up for
FOLDER_MODE, FILE_MODE = 0o755, 0o644


async def apply(daemon: "Daemon", row: Instance, config: Config, devices: Devices) -> None:
    """Write what is due at this start. The caller holds the lock; the disk is not mounted, before and after.

    Raises Invalid, naming the template that is wrong, or the path that cannot be written.
    """
    driver, volume = daemon.pools.driver(row.pool), volume_of(row)
    triggers = [*filter(None, [row.config.get(DUE)]), "start"]
    jobs = await asyncio.to_thread(_jobs, driver.path(volume), triggers, row, (config, devices))
    if not jobs:
        return
    texts = await rendered(daemon.runtime.helper, jobs)
    mount = await driver.mount(volume, None)
    try:
        server = await serve_folder(daemon.runtime.helper, mount.path)
        sftp = await Sftp.over(server.take())
        try:
            for job, text in zip(jobs, texts, strict=True):
                await _write(sftp, job["path"], text.encode(), only_new=job["create_only"])
        finally:
            sftp.close()
            await server.end()
    finally:
        await driver.unmount(volume)


def _jobs(
    folder: Any, triggers: list[str], row: Instance, expanded: tuple[Config, Devices]
) -> list[dict[str, Any]]:
    metadata = instance_files.read_metadata(folder)
    instance_files.check_templates(metadata)
    return [
        {
            "name": template.template,
            "path": path,
            "create_only": template.create_only,
            "text": instance_files.read_template(folder, template.template).decode(errors="replace"),
            "context": context(row, expanded, path, template, trigger),
        }
        for trigger in triggers
        for path, template in metadata.templates.items()
        if trigger in template.when
    ]


def context(
    row: Instance, expanded: tuple[Config, Devices], path: str, template: Template, trigger: str
) -> Job:
    """The names that a template may use; LXD's."""
    config, devices = expanded
    about = {
        "name": row.name,
        "type": row.type,
        "architecture": row.architecture,
        "privileged": "true" if is_on(config, "security.privileged") else "false",
        "ephemeral": "true" if row.ephemeral else "false",
    }
    return {
        "trigger": trigger,
        "path": path,
        "instance": about,
        "container": about,
        "config": config,
        "devices": devices,
        "properties": template.properties,
    }


async def _write(sftp: Sftp, path: str, text: bytes, *, only_new: bool) -> None:
    target = path.encode()
    try:
        known = await _make_way(sftp, target)
        if known and only_new:
            return
        async with sftp.open(target, client.WRITE | client.CREATE | client.TRUNCATE, 0o600) as file:
            await file.write(_parts(text))
            if not known:
                await file.change(Attributes(ids=(0, 0), mode=FILE_MODE))
    except ConnectionError:
        raise
    except OSError as failure:
        raise Invalid(f"Template for {path}: {failure.strerror}", path=path) from None


async def _make_way(sftp: Sftp, target: bytes) -> bool:
    """Make the folders above, remove what is no plain file. Whether a file is there already."""
    parts = target.split(b"/")[1:-1]
    for depth in range(1, len(parts) + 1):
        folder = b"/" + b"/".join(parts[:depth])
        try:
            await sftp.stat(folder)
        except FileNotFoundError:
            await sftp.make_folder(folder, 0o700)
            await sftp.change(folder, Attributes(ids=(0, 0), mode=FOLDER_MODE))
    try:
        known = await sftp.lstat(target)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(known.mode or 0):
        return True
    if stat.S_ISDIR(known.mode or 0):
        raise IsADirectoryError(21, "is a folder")
    await sftp.remove(target)
    return False


async def _parts(text: bytes) -> AsyncIterator[bytes]:
    yield text
