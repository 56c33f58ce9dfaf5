"""Files of GPUs that have other numbers than when they were given: cards were lost, and came back.

A number says which card a file opens. So a container whose card has another number by now must lose the old
file, which may be somebody else's card, and get the new one.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from lxdpy.host.devices.driver import DeviceDriver, Node, Seat
from lxdpy.host.devices.gpu_cdi import cdi_name
from lxdpy.host.devices.gpu_options import NODES, attachment, given_before
from lxdpy.host.gpu import inventory

Key = tuple[str, int, int]  # path in the container, major, minor


class Numbers(msgspec.Struct, frozen=True):
    """What a running container's device is to lose and to get."""

    keeps: tuple[Node, ...]
    loses: tuple[Node, ...]
    gets: tuple[Node, ...]
    volatile: dict[str, str]  # to remember, without the "volatile.<device>." prefix


@runtime_checkable
class Renumbered(DeviceDriver, Protocol):
    """A driver of devices whose files may get other numbers while the container runs."""

    async def numbers(self, seat: Seat) -> Numbers:
        """Changes nothing. Fine while a GPU is gone."""
        ...


def numbers_of(
    seat: Seat, files: Mapping[str, Iterable[inventory.Node]], control: Iterable[inventory.Node]
) -> Numbers:
    """`files` are those that each GPU of this host has now, by uuid.

    If it was never noted which files the container got, it is taken to have those of now: nothing that it may
    be using is taken away. Of a GPU that is gone its holder keeps the files, for when it is back, unless they
    are another's by now.
    So for a CDI device, whose spec says what else there is: it gets new files at its next start.
    """
    named = bool(cdi_name(seat.options))
    own = [*control, *(file for uuid in seat.gpus for file in files.get(uuid, ()))]
    others = {(file.major, file.minor) for uuid in files if uuid not in seat.gpus for file in files[uuid]}
    now = {_key(node): node for node in attachment(seat, own, ()).nodes}
    had = {_key(node): node for node in given_before(seat).nodes} if NODES in seat.volatile else now
    gone = had.keys() - now.keys()
    whole = all(uuid in files for uuid in seat.gpus) and not named
    loses = {key for key in gone if whole or key[1:] in others}
    keeps = [key for key in had if key not in loses]
    gets = [] if named else [key for key in now if key not in had]
    has = attachment(seat, [_file(node) for node in (*map(had.get, keeps), *map(now.get, gets)) if node], ())
    return Numbers(
        tuple(had[key] for key in keeps),
        tuple(had[key] for key in sorted(loses)),
        tuple(now[key] for key in gets),
        has.volatile,
    )


def _file(node: Node) -> inventory.Node:
    return inventory.Node(node.path, node.major, node.minor, node.source)


def _key(node: Node) -> Key:
    return (node.path, node.major, node.minor)
