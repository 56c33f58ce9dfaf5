"""This member among the others: its identity, whom it trusts and dials, where it listens.

Everything here follows from the replicated state and is done again whenever it changes. Two things make a
member another one: joining (`become`), and being told that it was removed (`dismissed`), be it by the log or,
when it was away, by the first member that it dials: that one has a note of all who were removed.
"""

import asyncio
import logging
import os
import platform
import socket
from collections.abc import Awaitable, Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from cluster import failpoints
from cluster.errors import Error
from cluster.ids import new_member_id
from cluster.membership import identity as identities
from cluster.membership.certificates import pem_of
from cluster.membership.commands import ReadyMember, ReportInventory, SetMemberAddress
from cluster.membership.features import FEATURES, UpdateVersion
from cluster.membership.identity import Identity, Peer, introduced
from cluster.membership.model import MEMBERS, REMOVED, Inventory, Removed, members, the_cluster
from cluster.state.txn import State
from cluster.tls.certificates import fingerprint_of
from cluster.tls.contexts import Contexts
from cluster.tls.openssl import Adapter
from lxdpy import VERSION
from lxdpy.daemon.tasks import guarded
from lxdpy.resources.cluster.leaving import vacate
from lxdpy.resources.cluster.model import MemberConfigKey
from lxdpy.resources.server.commands import ConfigureServer
from lxdpy.resources.server.model import member_setting
from lxdpy.rest.listener import Listener

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

_fingerprint = lru_cache(maxsize=4)(fingerprint_of)  # parsing a certificate costs as much as a request

log = logging.getLogger(__name__)

FOLLOWS_EVERY = 0.05  # seconds between looks for this member's own row, after joining
AGAIN = 1.0  # seconds until a member that joins or leaves tries again


class Membership:
    """See the module's docstring. `become` replaces the identity of a running daemon."""

    def __init__(
        self, root: Path, identity: Identity, contexts: Contexts, listener: Listener, tls: Adapter
    ) -> None:
        self.root = root  # $LXD_DIR
        self.identity = identity
        self.contexts = contexts
        self.listener = listener
        self.tls = tls
        self.secrets: dict[str, str] = {}  # of tokens minted here, by id; lost when the daemon stops
        self.architecture = platform.machine()
        self.pid = os.getpid()
        self.daemon: Daemon  # set by the daemon's main, once there is one
        self.reopen: Callable[[Identity], Awaitable[None]]  # likewise
        self.serve: Callable[[bool], None]  # likewise: whether requests are answered
        self.server: web.Server  # likewise
        self._listens = False  # where the identity says, and with its certificate
        self.out = asyncio.Event()  # set when this member was removed; it then becomes another one
        self.trust()

    # ---- what others ask

    def hostname(self) -> str:
        return socket.gethostname()

    def certificate(self) -> str:
        """PEM of what the listener shows."""
        return self.identity.certificate or self._own

    def fingerprint(self) -> str:
        return _fingerprint(self.certificate())

    @cached_property
    def _own(self) -> str:
        """Read once: every GET of /1.0 shows it, and the file stays as it is until `rekeyed`."""
        return self.daemon.keys.pem()

    def listening(self) -> tuple[str, ...]:
        """host:port of the open HTTPS addresses."""
        return tuple(self.listener.addresses)

    def configured(self) -> str:
        """The address this member was given; "" for none."""
        state, me = self.daemon.state, self.daemon.member_id
        own = member_setting(state, me, "cluster.https_address") or member_setting(
            state, me, "core.https_address"
        )
        return own or self.identity.cluster_listen or self.identity.listen

    # ---- identity

    def trust(self) -> None:
        """Let the transport trust exactly the members of the identity, and know those who were removed."""
        trusted = {member: peer.certificate for member, peer in self.identity.peers.items()}
        self.contexts.update(trusted, self.identity.removed)

    async def refresh(self) -> None:
        """Bring identity, trust, links and listener in line with the state. Idempotent."""
        async with self.daemon.lock("identity"):
            await self._refresh()

    async def _refresh(self) -> None:
        old, introductions = self.identity, self.daemon.introductions
        new = followed(introduced(old, introductions.newest), self.daemon.state)
        if new.member_id not in new.peers:
            if self.daemon.state.find(REMOVED, new.member_id):
                self.dismissed(new.member_id)
            return
        if new != old:
            await failpoints.reach("identity.followed")
            await asyncio.to_thread(identities.save, self.root, new)
            self.identity = new  # not before it is on disk: who failed tries again as long as they differ
            self.trust()
            for gone in old.peers.keys() - new.peers.keys():
                self.daemon.store.drop(gone)
            self.daemon.store.addresses_changed()
            introductions.tell()
        if new != old or not self._listens:
            await self._open()

    async def open(self) -> None:
        """Listen where the identity says. If that cannot be, it is tried again by `refresh`: the network may
        not be up yet, and a server that has moved can only be told where to by its socket.
        """
        await guarded(self._open(), "listening")

    async def _open(self) -> None:
        self._listens = False
        await self.listen(self.identity.listen)
        self._listens = True

    async def listen(self, address: str) -> None:
        """Listen there ("": on the local socket only, unless clustered). Raises Invalid when it cannot be."""
        wanted = {a for a in (address, self.own_address()) if a}
        if self.identity.certificate:
            self.tls.replace_pem(self.identity.certificate, self.identity.certificate_key)
        else:
            self.tls.replace(self.daemon.keys)
        await self.listener.listen(sorted(wanted), self.server, self.tls, self.daemon.store.adopt)

    async def rekeyed(self) -> None:
        """This member's key pair was replaced on disk: show the new one wherever it is asked for."""
        self.__dict__.pop("_own", None)
        self.contexts.reload()
        self.daemon.forwarder.rekeyed()
        await self.listen(self.identity.listen)

    def own_address(self) -> str:
        own = self.identity.peers.get(self.identity.member_id)
        return own.address if own else self.identity.cluster_listen

    async def ensure_listening(self, address: str) -> None:
        """Listen at `address` and record it as this member's, unless that is so already."""
        if self.configured() != address:
            await self.listen(address)
            own = {"core.https_address": address}
            await self.daemon.store.propose(ConfigureServer({}, self.daemon.member_id, own))

    async def become(self, identity: Identity) -> None:
        """Stop following the present log, wipe it, and go on under another identity in the same process. The
        caller holds the lock "identity": what follows the present one must not be written after.

        After a crash in the middle the next start goes on from there.
        """
        await self.daemon.store.stop()
        self.daemon.introductions.forget()
        self.identity = identity
        self.secrets.clear()
        await asyncio.to_thread(identities.save, self.root, identity)
        await failpoints.reach("identity.saved")
        self.trust()
        await self.reopen(identity)
        self.out.clear()
        await self.open()

    async def begun(self) -> None:
        """The log is there: from here on, a start without it is refused."""
        if self.identity.fresh:
            self.identity = msgspec.structs.replace(self.identity, fresh=False)
            await asyncio.to_thread(identities.save, self.root, self.identity)

    def dismissed(self, by: str) -> None:
        """This member was removed, says `by`. It may be told before it knows what runs on its host."""
        if not self.out.is_set():
            self.out.set()
            log.warning("removed from the cluster, says %s: this server begins anew", by)

    async def begin_anew(self) -> None:
        """Forget the cluster, its secrets included, and be a server of its own at the same address. Nobody is
        served until then.
        """
        async with self.daemon.lock("identity"):
            await guarded(vacate(self.daemon), "leaving")  # whatever fails: the secrets go
            fresh, listen = identities.new_identity(new_member_id()), self.configured()
            await self.become(msgspec.structs.replace(fresh, listen=listen))
            self.serve(True)

    async def settle_in(self) -> None:
        """While this member is joining: tell what it has, then be ready. Resumed at the next start."""
        joined = self.identity
        me = joined.member_id
        while not self.out.is_set() and self.daemon.member_id == me:
            row = self.daemon.state.find(MEMBERS, me)
            if row is not None and row.status != "joining":
                return
            try:
                if row is not None:
                    await self.introduce(joined)
                    await failpoints.reach("join.introduced")
                    await self.daemon.store.propose(ReadyMember(me))
            except Error as failure:
                log.info("not ready yet: %s", failure.message)
            await asyncio.sleep(AGAIN if row else FOLLOWS_EVERY)

    async def introduce(self, joined: Identity) -> None:
        """After joining as `joined`: record where this member listens, what it has, and its own keys of
        pools and networks. Idempotent.
        """
        keys = [msgspec.convert(key, MemberConfigKey) for key in joined.own_keys]
        own = {"core.https_address": joined.listen, "cluster.https_address": joined.cluster_listen}
        await self.daemon.store.propose(ConfigureServer({}, joined.member_id, own))
        await self.daemon.bridges.introduce(keys)
        await self.daemon.pools.introduce(keys)
        await self.report()

    async def report(self) -> None:
        """Tell the cluster what this host has, which version it runs, and where it is, if it was moved."""
        inventory = Inventory(
            self.daemon.member_id,
            self.architecture,
            os.cpu_count() or 1,
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )
        await self.daemon.store.propose(ReportInventory(inventory))
        me = self.daemon.member_id
        if me in self.identity.moved:
            own = {"core.https_address": self.identity.listen}
            own["cluster.https_address"] = self.identity.cluster_listen
            await self.daemon.store.propose(ConfigureServer({}, me, own))
            await self.daemon.store.propose(SetMemberAddress(me, self.identity.moved[me]))
        row = self.daemon.state.get(MEMBERS, me)
        if (row.features, row.version) != (FEATURES, VERSION):
            await self.daemon.store.propose(UpdateVersion(me, FEATURES, VERSION))


def followed(identity: Identity, state: State) -> Identity:
    """`identity` as the state has it, unless it is of a later one; but where a member is, as was told to this
    one while it was stopped, until the state agrees; and where a joining one listens, as it is about to tell.
    """
    if state.index < identity.index:
        return identity
    me, cluster, rows = identity.member_id, the_cluster(state), members(state)
    joins = any(row.id == me and row.status == "joining" for row in rows)
    told = identity.moved
    moved = {row.id: told[row.id] for row in rows if told.get(row.id, row.address) != row.address}
    own = {"listen": "core.https_address", "cluster_listen": "cluster.https_address"}
    listens = (
        {} if joins or me in moved else {name: member_setting(state, me, key) for name, key in own.items()}
    )
    new = msgspec.structs.replace(
        identity,
        peers={row.id: Peer(moved.get(row.id, row.address), pem_of(row)) for row in rows},
        removed={row.id: _shown(identity, row) for row in state.rows(REMOVED).values()},
        moved=moved,
        certificate=cluster.certificate,
        certificate_key=cluster.certificate_key,
        **listens,
    )
    return new if new == identity else msgspec.structs.replace(new, index=state.index)


def _shown(identity: Identity, gone: Removed) -> str:
    """What a member that was removed may show: another certificate, if it was about to get that."""
    known = identity.peers.get(gone.id)
    return known.certificate if known else identity.removed.get(gone.id, gone.certificate)
