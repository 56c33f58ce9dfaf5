"""PURE: lifecycle events of what networks have."""

from collections.abc import Iterator

from lxdpy.resources.networks.model import Network
from lxdpy.resources.wire import url


def told_of_forwards(before: Network, after: Network) -> Iterator[tuple[str, str, str]]:
    """Action, URL path and member of each forward that came, went or changed."""
    for member, part in sorted(after.members.items()):
        old = before.members[member].forwards if member in before.members else {}
        for listen in sorted({*old, *part.forwards}):
            verb = "created" if listen not in old else "deleted" if listen not in part.forwards else "updated"
            if old.get(listen) != part.forwards.get(listen):
                path = url("networks", after.name, "forwards", listen, project=after.project)
                yield f"network-forward-{verb}", path, member
