"""Which VLANs a port of a bridge is in. Blocking."""

import msgspec

from cluster.errors import Conflict
from lxdpy.host.network.links import Link, Links


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """VLANs of one port."""

    untagged: int | None = None  # of what comes without a tag; None: the bridge's own, 0: that is dropped
    tagged: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.untagged is not None or bool(self.tagged)


def require(links: Links, bridge: Link, *, ours: bool) -> None:
    """Have the bridge tell VLANs apart; one that is not ours must do so already.

    Nothing changes for its other ports: they stay in the VLAN that the bridge gives to all. Raises Conflict,
    Unsupported.
    """
    if bridge.data("IFLA_BR_VLAN_FILTERING"):
        return
    if not ours:
        raise Conflict(
            f'VLAN filtering is not enabled in parent bridge "{bridge.name}"', interface=bridge.name
        )
    links.filter_vlans(bridge.index)


def join(links: Links, bridge: Link, port: Link, wanted: Membership) -> None:
    """Put a new port of a bridge into these VLANs. Again is no harm."""
    usual = bridge.data("IFLA_BR_VLAN_DEFAULT_PVID") or 0
    if wanted.untagged is not None:
        if usual and usual != wanted.untagged:
            links.leave_vlan(port.index, usual)
        if wanted.untagged:
            links.join_vlan(port.index, wanted.untagged, untagged=True)
    for number in wanted.tagged:
        links.join_vlan(port.index, number, untagged=False)
