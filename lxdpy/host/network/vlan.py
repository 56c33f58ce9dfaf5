"""VLANs of an interface of the host (802.1Q), from the first NIC that needs one to the last. Blocking.

Those of ours are marked, and have one further name for each NIC that uses them: so the kernel itself counts
them, and knows of none after the machine has started anew. One that somebody else made is used as it is.
"""

import hashlib
import threading

from cluster.errors import Invalid
from lxdpy.host.network import sysctl
from lxdpy.host.network.links import Link, Links
from lxdpy.host.network.macvlan import parent_of
from lxdpy.host.paths import HostRoot

OURS = "lxdpy vlan"  # the mark, as the kernel's ifalias
LONGEST = 15  # bytes of the name of an interface
_alone = threading.Lock()  # between a look at who uses a VLAN and what is made of it


def user_of(owner: str) -> str:
    """The further name that a NIC gives to the VLAN it uses."""
    return f"lxdpy-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"


def hold(owner: str, parent: str, number: int, *, gvrp: bool = False, root: HostRoot | None = None) -> str:
    """Name of the VLAN's interface, which is there and up. Again is no harm.

    Raises Unavailable without the parent, Unsupported where the kernel has no VLANs, Invalid if the name
    would be too long.
    """
    with _alone, Links() as links:
        below = parent_of(links, parent)
        link = find(links, below, number) or _make(links, below, number, gvrp, root or HostRoot())
        if not link.up:
            links.change(link.index, state="up")
        if link.alias == OURS and links.find(user_of(owner)) is None:
            links.name_too(link.index, user_of(owner))
        return link.name


def release(owner: str) -> None:
    """The NIC uses no VLAN any more. Idempotent."""
    with _alone, Links() as links:
        link = links.find(user_of(owner))
        if link is None:
            return
        if link.names == (user_of(owner),):
            links.delete(link.name)
        else:
            links.name_no_more(link.index, user_of(owner))


def name_of(parent: str, number: int) -> str:
    """Of a VLAN that may be there; if it is not, that it would get."""
    with Links() as links:
        below = links.find(parent)
        link = find(links, below, number) if below else None
        return link.name if link else f"{parent}.{number}"


def find(links: Links, below: Link, number: int) -> Link | None:
    """On this host, whoever made it."""
    fits = (link for link in links.all() if link.kind == "vlan" and link.peer == below.index)
    return next((link for link in fits if link.data("IFLA_VLAN_ID") == number), None)


def _make(links: Links, below: Link, number: int, gvrp: bool, root: HostRoot) -> Link:
    name = f"{below.name}.{number}"
    if len(name) > LONGEST:
        raise Invalid(f'The name of the VLAN\'s interface would be too long: "{name}"', key="vlan")
    if not below.up:
        links.change(below.index, state="up")
    made = links.add_vlan(name, below.index, number, gvrp=gvrp)
    links.change(made.index, ifalias=OURS)
    sysctl.put(root.proc, f"ipv6/conf/{name}/accept_ra", "0")  # it is the instances', not the host's
    return links.get(name)
