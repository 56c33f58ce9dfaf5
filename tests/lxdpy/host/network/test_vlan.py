"""VLANs as they are asked of the kernel: where these tests run it may have none."""

from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from cluster.errors import Conflict, Invalid, Unavailable, Unsupported
from lxdpy.host.devices.nic_vlan import membership_of
from lxdpy.host.network import bridge_vlans, links, vlan
from lxdpy.host.network.bridge_vlans import Membership
from lxdpy.host.network.links import Links

UP = links.IFF_UP


class Attributes(dict[str, Any]):
    """What pyroute2 shows of a link."""

    def get_attrs(self, name: str) -> list[str]:
        return [value for key, value in self["attrs"] if key == name]


class Kernel:
    """The links of a host, and what was asked for, in place of pyroute2's session."""

    def __init__(self) -> None:
        self.links: list[Attributes] = []
        self.asked: list[tuple[object, ...]] = []
        self.refuses = 0

    def close(self) -> None:
        pass

    def put(self, name: str, kind: str = "", **facts: Any) -> Attributes:
        data = {"IFLA_VLAN_ID": facts.get("vlan_id"), "IFLA_BR_VLAN_DEFAULT_PVID": facts.get("pvid")}
        data["IFLA_BR_VLAN_FILTERING"] = facts.get("filtering")
        info = {"IFLA_INFO_KIND": kind, "IFLA_INFO_DATA": data}
        made = Attributes(index=len(self.links) + 2, flags=facts.get("flags", UP), IFLA_IFNAME=name)
        made |= {
            "IFLA_LINKINFO": info,
            "IFLA_LINK": facts.get("link"),
            "IFLA_PROP_LIST": Attributes(attrs=[]),
        }
        self.links.append(made)
        return made

    def get_links(self) -> list[Attributes]:
        return self.links

    def link(self, verb: str, **facts: Any) -> list[Attributes]:
        if verb == "get":
            name = facts["ifname"]
            fits = (a for a in self.links if name in (a["IFLA_IFNAME"], *_names(a)))
            found = next(fits, None)
            if found is None:
                raise NetlinkError(links.ENODEV)
            return [found]
        self._note("link", verb, facts)
        if verb == "add":
            name, kind = facts.pop("ifname"), facts.pop("kind")
            self.put(name, kind, **facts, flags=0)
        else:
            self._change(verb, next(a for a in self.links if a["index"] == facts["index"]), facts)
        return []

    def _change(self, verb: str, one: Attributes, facts: dict[str, Any]) -> None:
        named = ("IFLA_ALT_IFNAME", facts.get("altname"))
        if verb == "del":
            self.links.remove(one)
        elif verb == "property_add":
            one["IFLA_PROP_LIST"]["attrs"].append(named)
        elif verb == "property_del":
            one["IFLA_PROP_LIST"]["attrs"].remove(named)
        else:
            one["IFLA_IFALIAS"] = facts.get("ifalias", one.get("IFLA_IFALIAS"))
            one["flags"] |= UP if facts.get("state") == "up" else 0

    def vlan_filter(self, verb: str, **facts: Any) -> None:
        self._note("vlan_filter", verb, facts)

    def _note(self, what: str, verb: str, facts: dict[str, Any]) -> None:
        self.asked.append((what, verb, dict(facts)))
        if self.refuses:
            raise NetlinkError(self.refuses)


def _names(link: Attributes) -> list[str]:
    properties: Attributes = link["IFLA_PROP_LIST"]
    return properties.get_attrs("IFLA_ALT_IFNAME")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(links, "IPRoute", lambda: made)
    return made


def names(kernel: Kernel) -> list[str]:
    return [one["IFLA_IFNAME"] for one in kernel.links]


def test_a_vlan_is_made_for_the_first_and_goes_with_the_last(kernel: Kernel) -> None:
    parent = kernel.put("up0", flags=0)
    for owner in ("one", "one", "two"):
        assert vlan.hold(owner, "up0", 7, gvrp=True) == "up0.7"
    added = {"ifname": "up0.7", "kind": "vlan", "link": parent["index"], "vlan_id": 7}
    adds = [one for one in kernel.asked if one[1] == "add"]
    assert adds == [("link", "add", added | {"vlan_flags": ["reorder_hdr", "gvrp"]})]
    assert parent["flags"] & UP
    assert kernel.links[1]["flags"] & UP
    assert vlan.name_of("up0", 7) == "up0.7"
    vlan.release("one")
    vlan.release("one")
    assert names(kernel) == ["up0", "up0.7"]
    vlan.release("two")
    vlan.release("two")
    assert names(kernel) == ["up0"]


def test_a_vlan_that_somebody_made_is_used_and_left(kernel: Kernel) -> None:
    parent = kernel.put("up0")
    kernel.put("up0.7", "vlan", link=parent["index"], vlan_id=8)
    kernel.put("mine", "vlan", link=parent["index"], vlan_id=7)
    assert vlan.hold("one", "up0", 7) == vlan.name_of("up0", 7) == "mine"
    vlan.release("one")
    assert names(kernel) == ["up0", "up0.7", "mine"]
    assert kernel.asked == []


def test_where_there_can_be_no_vlan_it_is_said_why(kernel: Kernel) -> None:
    with pytest.raises(Unavailable, match="up0"):
        vlan.hold("one", "up0", 7)
    kernel.put("up0")
    kernel.put("a-long-parent")
    with pytest.raises(Invalid, match=r"a-long-parent\.77"):
        vlan.hold("one", "a-long-parent", 77)
    kernel.refuses = links.EOPNOTSUPP
    with pytest.raises(Unsupported, match="8021q"):
        vlan.hold("one", "up0", 7)
    assert names(kernel) == ["up0", "a-long-parent"]
    assert vlan.name_of("gone", 7) == "gone.7"


def test_a_bridge_of_ours_is_made_to_tell_vlans_apart_and_another_must_do_so(kernel: Kernel) -> None:
    kernel.put("br0", "bridge")
    with Links() as session:
        bridge = session.get("br0")
        with pytest.raises(Conflict, match='not enabled in parent bridge "br0"'):
            bridge_vlans.require(session, bridge, ours=False)
        assert kernel.asked == []
        bridge_vlans.require(session, bridge, ours=True)
        assert kernel.asked == [("link", "set", {"index": 2, "kind": "bridge", "br_vlan_filtering": 1})]
        kernel.refuses = links.EOPNOTSUPP
        with pytest.raises(Unsupported, match="CONFIG_BRIDGE_VLAN_FILTERING"):
            bridge_vlans.require(session, bridge, ours=True)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, []),
        ({"vlan": "1"}, [("add", 1, ["pvid", "untagged"])]),
        ({"vlan": "7"}, [("del", 1, 0), ("add", 7, ["pvid", "untagged"])]),
        ({"vlan": "none"}, [("del", 1, 0)]),
        ({"vlan.tagged": "9,5-6, 5"}, [("add", 5, 0), ("add", 6, 0), ("add", 9, 0)]),
    ],
)
def test_a_port_is_put_into_the_vlans_of_its_options(
    kernel: Kernel, options: dict[str, str], asked: list[tuple[str, int, object]]
) -> None:
    kernel.put("br0", "bridge", filtering=1, pvid=1)
    port = kernel.put("port", "veth")
    wanted = membership_of(options)
    assert bool(wanted) is bool(options)
    with Links() as session:
        bridge = session.get("br0")
        bridge_vlans.require(session, bridge, ours=False)
        bridge_vlans.join(session, bridge, session.get("port"), wanted)
    assert kernel.asked == [
        ("vlan_filter", verb, {"index": port["index"], "vlan_info": {"vid": number, "flags": flags}})
        for verb, number, flags in asked
    ]


def test_a_bridge_that_gives_no_vlan_takes_none_away(kernel: Kernel) -> None:
    kernel.put("br0", "bridge", filtering=1, pvid=0)
    kernel.put("port", "veth")
    with Links() as session:
        bridge_vlans.join(session, session.get("br0"), session.get("port"), Membership(untagged=0))
    assert kernel.asked == []
