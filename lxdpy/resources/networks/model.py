"""Managed networks: rows and bodies."""

from typing import Literal

from cluster.state.table import Stored, Table

Status = Literal["Pending", "Created", "Errored"]


class ForwardPort(Stored, frozen=True):
    """Ports of a forward's address, and where they go."""

    protocol: str = ""
    listen_port: str = ""
    target_address: str = ""
    target_port: str = ""
    description: str = ""


class Forward(Stored, frozen=True):
    """An address whose traffic goes to instances of the network."""

    description: str = ""
    config: dict[str, str] = {}
    ports: tuple[ForwardPort, ...] = ()


class NetworkMember(Stored, frozen=True):
    """A network on one member: the keys that are its own, and how far it got."""

    config: dict[str, str] = {}
    status: Status = "Pending"
    error: str = ""
    kind: str = ""  # of the error
    forwards: dict[str, Forward] = {}  # by listen address


class Network(Stored, frozen=True):
    """Key: "project/name". Each member makes its bridge when it has applied the row with status Created."""

    project: str
    name: str
    type: str = "bridge"
    description: str = ""
    config: dict[str, str] = {}
    status: Status = "Pending"
    members: dict[str, NetworkMember] = {}

    @property
    def key(self) -> str:
        return f"{self.project}/{self.name}"


def errored(network: Network) -> bool:
    """Whether some member failed to make its part: creating it again goes on from there."""
    return any(own.status == "Errored" for own in network.members.values())


NETWORKS: Table[Network] = Table("networks", Network)
OWN_KEYS = ("bridge.external_interfaces", "parent", "bgp.ipv4.nexthop", "bgp.ipv6.nexthop")
