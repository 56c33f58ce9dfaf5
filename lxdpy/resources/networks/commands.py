"""Raft commands of managed networks."""

from collections.abc import Iterable

import msgspec

from cluster.errors import AlreadyExists, Conflict, Invalid, NotFound
from cluster.membership.model import MEMBERS, name_of
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.networks.model import NETWORKS, Forward, Network, NetworkMember, errored
from lxdpy.resources.profiles.model import PROFILES, Devices, Profile
from lxdpy.resources.projects.model import PROJECTS, home
from lxdpy.resources.projects.permitted import check_project
from lxdpy.resources.wire import url

replace = msgspec.structs.replace


class DefineNetwork(Command, frozen=True, tag="network.define"):
    """First step in a cluster: what is particular to one member. Repeated once a member."""

    project: str
    name: str
    type: str
    member: str
    config: dict[str, str]

    def apply(self, txn: Txn) -> None:
        before = txn.find(NETWORKS, f"{self.project}/{self.name}")
        if before is None:
            check_name(txn, self.name)
            before = Network(self.project, self.name, self.type)
        if before.status != "Pending" or self.member in before.members:
            member = name_of(txn, self.member)
            raise AlreadyExists(f'The network is already defined on member "{member}"')
        members = {**before.members, self.member: NetworkMember(self.config)}
        txn.put(NETWORKS, before.key, replace(before, members=members))


class CreateNetwork(Command, frozen=True, tag="network.create"):
    """Second step, or the only one of a cluster of one: members make their bridge when they apply it.

    Of a network that some members could not make it is another try, with what was given the first time.
    """

    network: Network

    def apply(self, txn: Txn) -> None:
        new = self.network
        before = txn.find(NETWORKS, new.key)
        if before is not None and before.status == "Created":
            if not errored(before):
                raise Invalid("The network already exists")
            new = before
        if before is None:
            check_name(txn, new.name)
        members = dict(new.members) or dict(before.members if before else {})
        missing = sorted(name_of(txn, m) for m in txn.rows(MEMBERS) if m not in members)
        if missing:
            if before is None and len(missing) > 1:
                raise Invalid("Network not pending on any node (use --target <node> first)")
            raise Invalid(f"Network not defined on nodes: {', '.join(missing)}", members=", ".join(missing))
        pending = {
            m: row if row.status == "Created" else replace(row, status="Pending", error="", kind="")
            for m, row in members.items()
        }
        txn.put(NETWORKS, new.key, replace(new, status="Created", members=pending))
        check_project(txn, new.project)


class SetNetworkMember(Command, frozen=True, tag="network.member"):
    """A member reports what became of its part, and, when it joins, which keys it has of its own."""

    key: str
    member: str
    row: NetworkMember

    def apply(self, txn: Txn) -> None:
        txn.get(MEMBERS, self.member)  # a removed one may still have had a report on its way
        network = txn.get(NETWORKS, self.key)
        known = network.members.get(self.member, self.row)
        part = replace(self.row, config=known.config, forwards=known.forwards)
        txn.put(NETWORKS, self.key, replace(network, members={**network.members, self.member: part}))


class UpdateNetwork(Command, frozen=True, tag="network.update"):
    """The keys that are a member's own stay, but for those of `member`, which become `own`."""

    key: str
    description: str
    config: dict[str, str]
    etag: str = ""
    member: str = ""
    own: dict[str, str] = {}

    def apply(self, txn: Txn) -> None:
        before = txn.get(NETWORKS, self.key)
        check_etag(self.etag, network_etag(before))
        members = before.members
        if part := members.get(self.member):
            members = {**members, self.member: replace(part, config=self.own)}
        after = replace(before, description=self.description, config=self.config, members=members)
        txn.put(NETWORKS, self.key, after)


class RenameNetwork(Command, frozen=True, tag="network.rename"):
    key: str
    name: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(NETWORKS, self.key)
        if users(txn, before):
            raise Invalid("Network is currently in use")
        after = replace(before, name=self.name)
        if txn.find(NETWORKS, after.key) is not None:
            raise AlreadyExists(f'Network "{self.name}" already exists')
        check_name(txn, self.name)
        txn.insert(NETWORKS, after.key, after)
        txn.delete(NETWORKS, self.key)


class DeleteNetwork(Command, frozen=True, tag="network.delete"):
    """Members take their bridge down when they apply this."""

    key: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(NETWORKS, self.key)
        if users(txn, row):
            raise Invalid("The network is currently in use")
        txn.delete(NETWORKS, self.key)


class CreateForward(Command, frozen=True, tag="network.forward.create"):
    """The member sends it on when it applies this."""

    key: str  # of the network
    member: str
    listen: str
    forward: Forward

    def apply(self, txn: Txn) -> None:
        for other in txn.rows(NETWORKS).values():
            if self.listen in other.members.get(self.member, NetworkMember()).forwards:
                raise AlreadyExists("A forward for that listen address already exists")
        _put_forward(txn, self.key, self.member, self.listen, self.forward)


class UpdateForward(Command, frozen=True, tag="network.forward.update"):
    key: str
    member: str
    listen: str
    forward: Forward
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = forward_of(txn, self.key, self.member, self.listen)
        check_etag(self.etag, forward_etag(self.listen, before))
        _put_forward(txn, self.key, self.member, self.listen, self.forward)


class DeleteForward(Command, frozen=True, tag="network.forward.delete"):
    key: str
    member: str
    listen: str

    def apply(self, txn: Txn) -> None:
        forward_of(txn, self.key, self.member, self.listen)
        _put_forward(txn, self.key, self.member, self.listen, None)


def _put_forward(txn: Txn, key: str, member: str, listen: str, forward: Forward | None) -> None:
    network = txn.get(NETWORKS, key)
    part = network.members.get(member)
    if part is None:
        raise Conflict(f"Network {network.name} is not on member {name_of(txn, member)}")
    rest = {one: known for one, known in part.forwards.items() if one != listen}
    forwards = rest if forward is None else {**rest, listen: forward}
    members = {**network.members, member: replace(part, forwards=forwards)}
    txn.put(NETWORKS, key, replace(network, members=members))


def forward_of(state: State | Txn, key: str, member: str, listen: str) -> Forward:
    """Raises NotFound."""
    forward = state.get(NETWORKS, key).members.get(member, NetworkMember()).forwards.get(listen)
    if forward is None:
        raise NotFound("Network forward not found", listen_address=listen)
    return forward


def forward_etag(listen: str, forward: Forward) -> str:
    return etag_of(listen, forward.description, forward.config, forward.ports)


def check_name(state: State | Txn, name: str) -> None:
    """Raises Conflict if it is taken, in whatever project: a bridge's name is its own on the host."""
    if any(row.name == name for row in state.rows(NETWORKS).values()):
        raise Conflict(f'Network interface "{name}" already exists', name=name)


def users(state: State | Txn, network: Network) -> list[str]:
    """URL paths of what has a NIC on the network, sorted."""
    own = {name for name in state.rows(PROJECTS) if home(state, name, "networks") == network.project}
    nouns: dict[str, Iterable[Instance | Profile]] = {
        "instances": state.rows(INSTANCES).values(),
        "profiles": state.rows(PROFILES).values(),
    }
    return sorted(
        url(noun, row.name, project=row.project)
        for noun, rows in nouns.items()
        for row in rows
        if row.project in own and uses(row.devices, network.name)
    )


def uses(devices: Devices, network: str) -> bool:
    return any(
        device.get("type") == "nic" and network in (device.get("network"), device.get("parent"))
        for device in devices.values()
    )


def network_etag(network: Network) -> str:
    return etag_of(network.name, network.type, network.description, network.config)


def forget_member(txn: Txn, member: str) -> None:
    """Its part is gone with it."""
    for row in list(txn.rows(NETWORKS).values()):
        rest = {m: part for m, part in row.members.items() if m != member}
        txn.put(NETWORKS, row.key, replace(row, members=rest))


COMMANDS: tuple[type[Command], ...] = (
    DefineNetwork,
    CreateNetwork,
    SetNetworkMember,
    UpdateNetwork,
    RenameNetwork,
    DeleteNetwork,
    CreateForward,
    UpdateForward,
    DeleteForward,
)
