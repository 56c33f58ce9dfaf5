"""What the kernel says of devices (uevents), said again in a container: there nobody hears of the host's.

So udev in it learns of device files that come and go while it runs. The kernel takes a message from whoever
is root over a network namespace, and passes it on there as its own (lib/kobject_uevent.c, since 4.18). Of
network interfaces that are moved it tells both sides by itself.
"""

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from lxdpy.host.mounts import CLONE_NEWNET, setns

NETLINK_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h, as are the next
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR, NLMSG_MIN_TYPE = 2, 16
ANSWER = struct.Struct("=IHHIIi")  # struct nlmsghdr, and the number in struct nlmsgerr


def facts_of(sys: Path, kind: str, major: int, minor: int, path: str) -> list[str]:
    """What is said of a device, as KEY=value; [] when sysfs does not know it.

    DEVNAME becomes the name that its file has in the container, which is `path`.
    """
    place = sys / "dev" / ("char" if kind == "c" else "block") / f"{major}:{minor}"
    try:
        lines = (place / "uevent").read_text().splitlines()
        device = place.resolve().relative_to(sys.resolve())
        subsystem = os.path.basename(os.readlink(place / "subsystem"))
    except (OSError, ValueError):
        return []
    own = [line for line in lines if not line.startswith("DEVNAME=")]
    return [f"DEVPATH=/{device}", f"SUBSYSTEM={subsystem}", *own, f"DEVNAME={path.removeprefix('/dev/')}"]


def message(action: str, facts: Sequence[str]) -> bytes:
    """As the kernel writes it, but for its number: `add@/devices/…`, then the facts."""
    device = next(fact.partition("=")[2] for fact in facts if fact.startswith("DEVPATH="))
    return b"".join(part.encode() + b"\0" for part in (f"{action}@{device}", f"ACTION={action}", *facts))


def tell(init: int, said: bytes) -> None:
    """Have it heard in the network namespace of a process (a pidfd). Changes the caller's for good.

    Raises OSError: EINVAL for more than 2 KB.
    """
    setns(init, CLONE_NEWNET)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT
    ) as end:
        flags = NLM_F_REQUEST | NLM_F_ACK
        end.sendto(struct.pack("=IHHII", 16 + len(said), NLMSG_MIN_TYPE, flags, 0, 0) + said, (0, 0))
        _, kind, _, _, _, error = ANSWER.unpack_from(end.recv(4096))
        if kind == NLMSG_ERROR and error:
            raise OSError(-error, os.strerror(-error), "uevent")
