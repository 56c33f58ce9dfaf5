"""This member's part of the managed networks: bridges made and removed as the rows say."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.errors import Error, ErrorInfo, NotFound, from_info
from cluster.membership.model import name_of
from cluster.state.txn import State
from lxdpy.host.network.driver import Network as HostNetwork
from lxdpy.resources.cluster.model import MemberConfigKey
from lxdpy.resources.networks.commands import SetNetworkMember
from lxdpy.resources.networks.forwarding import host_forwards
from lxdpy.resources.networks.model import NETWORKS, OWN_KEYS, Network, NetworkMember, Status
from lxdpy.resources.projects.model import DEFAULT

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


class Bridges:
    """What this host has of the managed networks, by key; the last row each was made from."""

    def __init__(self) -> None:
        self._made: dict[str, HostNetwork] = {}
        self._at_work: list[tuple[str, HostNetwork]] = []  # what is being made, or removed, just now
        self.daemon: Daemon  # set by the daemon's main, once there is one

    async def ensure(self, key: str) -> None:
        """Bring this host in line with the row; reports what became of it. Idempotent.

        A member that has just joined waits for its own keys of the network, see `introduce`.
        """
        row = self.daemon.state.find(NETWORKS, key)
        if row is None:
            await self._remove(key)
            return
        if not self._is_here(row):
            return
        wanted = host_network(row, self.daemon.member_id)
        own = row.members[self.daemon.member_id]
        if self._made.get(key) == wanted and own.status == "Created":  # else it is another one of that name
            return
        try:
            await self._make_room(key)
            with self._working(key, wanted):
                await self.daemon.networks.driver_for(row.type).ensure(wanted)
        except Error as failure:
            await self._became(key, wanted, "Errored", failure.message, failure.kind)
            raise
        self._made[key] = wanted
        await self._became(key, wanted, "Created")

    def _is_here(self, row: Network) -> bool:
        return row.status == "Created" and self.daemon.member_id in row.members

    @contextmanager
    def _working(self, key: str, network: HostNetwork) -> Iterator[None]:
        self._at_work.append((key, network))
        try:
            yield
        finally:
            self._at_work.remove((key, network))

    async def _make_room(self, key: str) -> None:
        """What is no more goes first: it may have the addresses or the interfaces that are wanted now."""
        for other, network in [*self._made.items(), *self._at_work]:
            if other != key and self.daemon.state.find(NETWORKS, other) is None:
                try:
                    await self._take_down(other, network)
                except Error as failure:
                    log.warning("network %s stays for now: %s", other, failure.message)

    async def _remove(self, key: str) -> None:
        gone = self._made.get(key) or self.strays().get(key)
        if gone is not None:
            await self._take_down(key, gone)
        self._made.pop(key, None)

    async def _take_down(self, key: str, gone: HostNetwork) -> None:
        """Not if its bridge is to be that of another network by now, which makes it as it should be."""
        rows = self.daemon.state.rows(NETWORKS).values()
        if not any(row.name == gone.name and self._is_here(row) for row in rows):
            with self._working(key, gone):
                await self.daemon.networks.driver_for(gone.type).remove(gone)

    def strays(self) -> dict[str, HostNetwork]:
        """What an earlier daemon made on this host of networks that are no more: deleted meanwhile.

        Of which project they were is not known: a bridge's name is its own on the host.
        """
        if not self.daemon.current:
            return {}  # an old state does not know yet what was made since
        known = {row.name for row in self.daemon.state.rows(NETWORKS).values()}
        return {
            f"{DEFAULT}/{name}": HostNetwork(name=name, type=type_)
            for name, type_ in self.daemon.networks.made().items()
            if name not in known
        }

    def failed(self) -> list[str]:
        """Keys of networks that were made, but whose programs have ended: `ensure` makes them again."""
        networks, at_work = self.daemon.networks, {key for key, _ in self._at_work}
        found = [
            key
            for key, made in self._made.items()
            if key not in at_work and not networks.driver_for(made.type).serves(made)
        ]
        for key in found:
            log.warning("network %s: its DNS and DHCP server has ended, and is started again", key)
            del self._made[key]
        return found

    def down(self) -> list[Network]:
        """Networks this member has a part of, but which do not serve here now."""
        rows = self.daemon.state.rows(NETWORKS).items()
        me = self.daemon.member_id
        return [row for key, row in rows if me in row.members and key not in self._made]

    async def _became(
        self, key: str, made: HostNetwork, status: Status, error: str = "", kind: str = ""
    ) -> None:
        """Report it, if that is news, and of the network that there is: what has changed is made again."""
        row = self.daemon.state.find(NETWORKS, key)
        if row is None or not self._is_here(row) or host_network(row, self.daemon.member_id) != made:
            return
        own = row.members[self.daemon.member_id]
        if (own.status, own.error) != (status, error):
            await self._report(key, NetworkMember(own.config, status, error, kind))

    async def _report(self, key: str, row: NetworkMember) -> None:
        try:
            await self.daemon.store.propose(SetNetworkMember(key, self.daemon.member_id, row))
        except NotFound:
            log.info("network %s was deleted meanwhile", key)

    async def introduce(self, keys: Sequence[MemberConfigKey]) -> None:
        """After joining: this member's own keys for every network of the cluster, which it then makes."""
        for key, row in sorted(self.daemon.state.rows(NETWORKS).items()):
            if self.daemon.member_id in row.members:
                continue
            config = {
                k.key: k.value
                for k in keys
                if k.entity == "network" and k.name == row.name and k.key in OWN_KEYS and k.value
            }
            await self._report(key, NetworkMember(config))

    async def remove_all(self) -> None:
        """Another identity is taken on: what was made belongs to nobody here any more."""
        for key, made in list(self._made.items()):
            try:
                await self.daemon.networks.driver_for(made.type).remove(made)
            except Error as failure:
                log.warning("removing network %s: %s", key, failure.message)
            self._made.pop(key, None)  # its row may be gone as well

    async def wait_for(self, key: str, timeout: float = 30.0) -> None:
        """Until every member that is online has made its part, or failed. Raises the first failure."""

        def settled(state: State) -> bool:
            row = state.find(NETWORKS, key)
            parts = row.members.items() if row else ()
            return all(own.status != "Pending" or not self.daemon.beat.online(m) for m, own in parts)

        try:
            row = (await self.daemon.until(settled, timeout)).get(NETWORKS, key)
        except TimeoutError:
            log.info("network %s: not all members have made it yet; they go on", key)
            return
        for member, own in sorted(row.members.items()):
            if own.error:
                where = f"Member {name_of(self.daemon.state, member)}: " if self.daemon.clustered else ""
                facts = {"network": row.name, "member": member}
                raise from_info(ErrorInfo(own.kind, where + own.error, facts))


def host_network(row: Network, member: str) -> HostNetwork:
    """What a host needs to know of the network."""
    own = row.members.get(member, NetworkMember())
    config = {**row.config, **own.config}
    return HostNetwork(
        name=row.name, type=row.type, config=config, project=row.project, forwards=host_forwards(own)
    )
