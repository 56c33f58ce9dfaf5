"""What all devices of type `gpu` have in common: options, and the files of those that were granted."""

from collections.abc import Iterable

from cluster.errors import Conflict, Invalid
from lxdpy.config.instance import INSTANCE
from lxdpy.config.key import Key
from lxdpy.config.types import either, integer, matching, one_of, size
from lxdpy.host.devices.driver import Attachment, Mount, Node, Options, Seat
from lxdpy.host.gpu import inventory
from lxdpy.host.gpu.cdi import NAME

MODE = "0660"
MOST = 64  # GPUs of one device, as of `limits.gpu`
UUIDS, NODES, MOUNTS = "gpu.uuids", "gpu.nodes", "gpu.mounts"
"""Volatile keys: what was granted, and the device files and the mounts that were given."""
GPUTYPE = Key(
    name="gputype",
    doc="Kind of GPU device: a whole card (`physical`), or a MIG device of one (`mig`).",
    parse=one_of("physical", "mig"),
    default="physical",
)

COMMON = (
    Key(name="type", doc="`gpu`."),
    GPUTYPE,
    Key(
        name="count",
        doc="How many GPUs; `1` if only `match`, `sharing` or `memory` is set.",
        parse=integer(1, MOST),
    ),
    Key(
        name="match",
        doc="Conditions on each GPU, such as `vendor=nvidia model~A100 memory>=40GiB driver>=550`.",
        parse=INSTANCE.key("gpu.match").parse,
    ),
    Key(
        name="sharing",
        doc="Whether GPUs are held alone (`exclusive`) or with others (`shared`); unset, counted GPUs "
        "are exclusive, and those given by LXD's selectors alone are shared.",
        parse=one_of("exclusive", "shared"),
    ),
    Key(
        name="memory",
        doc="Memory of each GPU: as much as is reserved if shared, the least it must have if exclusive.",
        parse=size,
    ),
    Key(
        name="pci",
        doc="PCI address of the GPU.",
        parse=matching(
            r"(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7]",
            "a PCI address such as 0000:07:00.0",
        ),
    ),
    Key(
        name="id",
        doc="DRM card number of the GPU, or the name of a CDI device, such as `nvidia.com/gpu=0`.",
        parse=either(integer(0, 999), matching(NAME, "a CDI device such as nvidia.com/gpu=0")),
    ),
    Key(
        name="vendorid",
        doc="PCI vendor id of the GPUs, such as `10de`.",
        parse=matching(r"(?:0x)?[0-9A-Fa-f]{4}", "a PCI id of four hex digits"),
    ),
    Key(
        name="productid",
        doc="PCI product id of the GPUs, such as `20b0`.",
        parse=matching(r"(?:0x)?[0-9A-Fa-f]{4}", "a PCI id of four hex digits"),
    ),
)

OWNER = (
    Key(name="uid", doc="Owner of the device files in the container.", parse=integer(0), default="0"),
    Key(name="gid", doc="Group of the device files in the container.", parse=integer(0), default="0"),
    Key(
        name="mode",
        doc="Mode of the device files in the container, octal.",
        parse=matching(r"0?[0-7]{3}", "a mode of three octal digits"),
        default=MODE,
    ),
)


class GpuGone(Conflict):
    """A granted GPU is not on this host any more; the instance must be placed again."""


class NoGrant(Conflict):
    """The device starts without GPUs: whoever starts it must have them granted first."""


def check_selectors(options: Options) -> None:
    """Raises Invalid, in LXD's words where it has the rule too."""
    for one in ("pci", "id"):
        if not options.get(one):
            continue
        for other in ("id", "productid", "vendorid"):
            if other != one and options.get(other):
                raise Invalid(f'Cannot use "{other}" when "{one}" is set', key=other)


def granted_of(seat: Seat, here: Iterable[str]) -> tuple[str, ...]:
    """The uuids granted to the device, all of them `here`. Raises NoGrant, GpuGone."""
    if not seat.gpus:
        raise NoGrant(f"No GPU is granted to device {seat.name}", device=seat.name)
    known = set(here)
    if missing := [uuid for uuid in seat.gpus if uuid not in known]:
        raise GpuGone(f"GPU not on this host: {missing[0]}", gpu=missing[0], device=seat.name)
    return seat.gpus


def attachment(seat: Seat, files: Iterable[inventory.Node], nvidia: Iterable[str]) -> Attachment:
    """The files, owned as the options say; `nvidia` are the uuids that NVIDIA's programs are told of."""
    options = seat.options
    nodes = tuple(
        Node(
            path=file.path,
            major=file.major,
            minor=file.minor,
            source=file.source,
            uid=int(options.get("uid") or 0),
            gid=int(options.get("gid") or 0),
            mode=int(options.get("mode") or MODE, 8),
        )
        for file in files
    )
    visible = ",".join(nvidia)
    return Attachment(
        nodes=nodes,
        environment={"NVIDIA_VISIBLE_DEVICES": visible} if visible else {},
        volatile=noted(seat, nodes),
    )


def noted(seat: Seat, nodes: Iterable[Node]) -> dict[str, str]:
    """What is to be remembered of a device that was given these files."""
    return {UUIDS: ",".join(seat.gpus), NODES: ",".join(map(_remembered, nodes))}


def given_before(seat: Seat) -> Attachment:
    """The files that were given, though their card may be gone. Control files are among them: the caller
    leaves those in place that another device of the instance has as well."""
    remembered = [entry for entry in seat.volatile.get(NODES, "").split(",") if entry]
    mounts = [target for target in seat.volatile.get(MOUNTS, "").split(":") if target]
    return Attachment(
        nodes=tuple(_recalled(entry) for entry in remembered),
        mounts=tuple(Mount(source="", target=target, common=True) for target in mounts),
    )


def _remembered(node: Node) -> str:
    return f"{node.path}={node.major}:{node.minor}"


def _recalled(entry: str) -> Node:
    path, _, number = entry.partition("=")
    major, _, minor = number.partition(":")
    return Node(path=path, major=int(major), minor=int(minor))
