"""A `gpu` device with the name of a CDI device as its `id`: the container gets what the vendor's spec says.

Which GPUs it holds is the ledger's word, as for any other: device files of a card that was not granted are
left out, though the spec's `all` has them. Mounts are of the host's files, for reading unless the spec says
otherwise; hooks are done by us (`gpu_cdi_hooks.py`).
"""

import os
import stat
from collections.abc import Collection, Iterable, Mapping

from cluster.errors import Conflict, Invalid
from lxdpy.host.devices.driver import Attachment, Mount, Node, Options, Seat
from lxdpy.host.devices.gpu_cdi_hooks import finish_of
from lxdpy.host.devices.gpu_options import MODE, MOUNTS, granted_of, noted
from lxdpy.host.gpu import cdi, inventory
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.host.paths import HostRoot

KEPT_OPTIONS = ("nosuid", "nodev", "noexec")  # of a mount; read-only has a field of its own


class NoSuchSpec(Conflict):
    """The GPU was granted by a CDI name that this host's specs do not have any more."""


def cdi_name(options: Options) -> str:
    """The CDI device that is asked for; "" for none."""
    wanted = options.get("id", "")
    return wanted if "=" in wanted else ""


def cdi_attachment(root: HostRoot, seat: Seat, name: str, gpus: Collection[Gpu]) -> Attachment:
    """All that the spec says. Raises GpuGone, NoGrant, NoSuchSpec, Unsupported for a hook, Invalid for a
    file that is not there."""
    granted = granted_of(
        seat, [uuid for gpu in gpus for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig))]
    )
    edits = cdi.devices(root).get(name)
    if edits is None:
        raise NoSuchSpec(f"No spec in {' or '.join(cdi.FOLDERS)} has the CDI device {name}", cdi=name)
    finish = finish_of(edits.hooks)
    foreign = _foreign(root, gpus, granted)
    nodes = {
        node.path: _node(root, node, seat.options)
        for node in edits.device_nodes
        if (node.host_path or node.path) not in foreign
    }
    mounts = {mount.container_path: _mount(root, mount) for mount in edits.mounts}
    notes = noted(seat, nodes.values())
    return Attachment(
        nodes=tuple(nodes.values()),
        mounts=tuple(mounts.values()),
        environment=_environment(edits.env) | _visible(gpus, granted),
        finish=finish,
        volatile=notes | ({MOUNTS: ":".join(mounts)} if mounts else {}),
    )


def _foreign(root: HostRoot, gpus: Iterable[Gpu], granted: Collection[str]) -> set[str]:
    """Device files of cards, and of MIG devices, that were not granted."""
    theirs: set[str] = set()
    ours: set[str] = set()
    for gpu in gpus:
        (ours if gpu.uuid in granted else theirs).update(node.path for node in gpu.nodes)
        for part in gpu.mig:
            mine = part.uuid in granted
            (ours if mine else theirs).update(node.path for node in inventory.mig_nodes(root, gpu, part))
    return theirs - ours


def _visible(gpus: Iterable[Gpu], granted: Iterable[str]) -> dict[str, str]:
    """What NVIDIA's programs are told, in place of the spec's `void`, which only keeps its runtime away."""
    own = [uuid for gpu in gpus if gpu.vendor == "nvidia" for uuid in (gpu.uuid, *(p.uuid for p in gpu.mig))]
    visible = ",".join(uuid for uuid in granted if uuid in own)
    return {"NVIDIA_VISIBLE_DEVICES": visible} if visible else {}


def _environment(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals and name}


def _node(root: HostRoot, node: cdi.DeviceNode, options: Mapping[str, str]) -> Node:
    """Owned as the device's options say, else as the spec does."""
    source = root.at(node.host_path or node.path)
    try:
        status = source.stat()
    except OSError as missing:
        raise Invalid(f"CDI device file {source}: {missing.strerror}", path=str(source)) from None
    if not stat.S_ISCHR(status.st_mode):
        raise Invalid(f"CDI device file {source} is no character device", path=str(source))
    mode = options.get("mode")
    return Node(
        path=_inside(node.path),
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        source=str(source),
        uid=int(options.get("uid") or node.uid or 0),
        gid=int(options.get("gid") or node.gid or 0),
        mode=int(mode, 8) if mode else (node.file_mode or int(MODE, 8)) & 0o777,
    )


def _mount(root: HostRoot, mount: cdi.Mount) -> Mount:
    source = root.at(mount.host_path)
    if mount.type not in ("", "bind", "none"):
        raise Invalid(f'CDI mount of type "{mount.type}" at {mount.container_path}: only bind is supported')
    if not source.exists():
        raise Invalid(f"CDI mount: {source}: no such file or folder on this host", path=str(source))
    return Mount(
        source=str(source),
        target=_inside(mount.container_path),
        directory=source.is_dir(),
        recursive="rbind" in mount.options and source.is_dir(),
        readonly="rw" not in mount.options,
        options=tuple(option for option in KEPT_OPTIONS if option in mount.options),
        common=True,
    )


def _inside(path: str) -> str:
    """Raises Invalid for a path that does not stay in the container, or that a list by colons cannot hold."""
    if not path.startswith("/") or ".." in path.split("/") or {":", ",", "=", "\n"} & set(path):
        raise Invalid(
            f'CDI path "{path}" is not an absolute one without "..", commas, colons and equal signs'
        )
    return path
