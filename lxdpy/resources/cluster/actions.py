"""What members do to become a cluster, and to join one."""

import ssl
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from cluster import failpoints
from cluster.address import concrete
from cluster.errors import Invalid, Unavailable, Uncertain
from cluster.ids import new_member_id
from cluster.membership.commands import EnableCluster
from cluster.membership.features import FEATURES
from cluster.membership.identity import Identity, Peer
from cluster.membership.model import MEMBERS, TOKENS, is_clustered
from cluster.membership.tokens import hash_of, parse
from cluster.state.table import Table
from cluster.state.txn import State
from cluster.tls.certificates import fingerprint_of, make
from cluster.tls.contexts import pinned_client
from lxdpy import VERSION
from lxdpy.resources.cluster.model import Accept, Accepted, ClusterPut, Json
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.server.commands import ConfigureServer
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.rest.errors import error_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

ACCEPT_WITHIN = 15.0  # seconds for one member to answer a joiner
CONNECT_WITHIN = 1.5  # seconds for TCP and TLS with one of them
READY_WITHIN = 60.0  # seconds for the log or a snapshot to arrive, and to be told what this host has


class Ticket(msgspec.Struct, frozen=True):
    """What a join request boils down to: whom to ask, what to expect, what to show."""

    name: str
    addresses: tuple[str, ...]
    fingerprint: str
    secret: str


async def ticket_of(body: ClusterPut) -> Ticket:
    """Raises Invalid unless token and name fit, or address, certificate and secret are all there."""
    if body.cluster_token:
        token = parse(body.cluster_token)
        if token.server_name != body.server_name:
            raise Invalid(
                f"The join token is for {token.server_name!r}, not for {body.server_name!r}",
                key="server_name",
            )
        return Ticket(token.server_name, tuple(token.addresses), token.fingerprint, token.secret)
    if not body.cluster_certificate or not body.cluster_password:
        raise Invalid(
            "Joining takes cluster_token, or cluster_certificate and cluster_password", key="cluster_token"
        )
    fingerprint = fingerprint_of(body.cluster_certificate)
    return Ticket(body.server_name, (body.cluster_address,), fingerprint, body.cluster_password)


async def check_joinable(daemon: "Daemon", body: ClusterPut) -> None:
    """Raises Invalid while this server has anything of its own: joining would lose it."""
    own: dict[str, Table[Any]] = {"instances": INSTANCES, "images": IMAGES}
    own |= {"storage pools": POOLS, "networks": NETWORKS}
    for noun, table in own.items():
        if daemon.state.rows(table):
            raise Invalid(f"This server has {noun} of its own: only an empty server can join", noun=noun)
    await reachable_address(daemon, body.server_address)


async def reachable_address(daemon: "Daemon", asked: str) -> str:
    """The concrete host:port at which others reach this member; listens there if it does not yet.

    Raises Invalid for a wildcard, or without any address.
    """
    address = asked or daemon.membership.configured()
    if not address:
        raise Invalid("Set core.https_address to an address the others can reach", key="core.https_address")
    full = concrete(address)
    await daemon.membership.ensure_listening(full)
    return full


async def enable(daemon: "Daemon", name: str, address: str) -> None:
    """Turn the cluster of one into one that others can join."""
    certificate, key = make(name, [address.rpartition(":")[0].strip("[]")])
    own = {"cluster.https_address": address}
    await daemon.store.propose(ConfigureServer({}, daemon.member_id, own))
    await daemon.store.propose(EnableCluster(daemon.member_id, name, address, certificate, key))
    await daemon.membership.refresh()


async def join(daemon: "Daemon", body: ClusterPut, ticket: Ticket) -> None:
    """Spend the token, become a member, and wait until it is ready. From there on it is one for good:
    what is cut short after that goes on by itself, also after a restart.
    """
    async with daemon.lock("identity"):
        member_id = await _become(daemon, body, ticket)
    await failpoints.reach("join.became")
    await until_ready(daemon, member_id)


async def _become(daemon: "Daemon", body: ClusterPut, ticket: Ticket) -> str:
    """The new member's id. The caller holds the lock "identity"."""
    if is_clustered(daemon.state):
        raise Invalid("This server is already clustered")  # by another request, meanwhile
    address = await reachable_address(daemon, body.server_address)
    member_id = new_member_id()
    ask = Accept(
        secret=ticket.secret,
        name=ticket.name,
        member_id=member_id,
        address=address,
        certificate=daemon.keys.pem(),
        architecture=daemon.membership.architecture,
        features=FEATURES,
        version=VERSION,
        now=time.time(),
    )
    answer = await ask_any(daemon, ticket, ask)
    await failpoints.reach("join.accepted")
    identity = Identity(
        cluster_id=answer.cluster_id,
        member_id=member_id,
        founder=False,
        listen=daemon.membership.configured() or address,
        cluster_listen=address,
        peers={i: Peer(known.address, known.certificate) for i, known in answer.members.items()},
        voters=tuple(answer.voters),
        certificate=answer.certificate,
        certificate_key=answer.certificate_key,
        fresh=True,
        index=answer.index,
        own_keys=tuple(msgspec.to_builtins(key) for key in body.member_config or ()),
    )
    await daemon.membership.become(identity)
    return member_id


async def until_ready(daemon: "Daemon", member: str) -> None:
    """Raises Unavailable, after a while or once it was removed again."""

    def settled(state: State) -> bool:
        row = state.find(MEMBERS, member)
        return daemon.member_id != member or (row is not None and row.status != "joining")

    try:
        state = await daemon.until(settled, READY_WITHIN)
    except TimeoutError:
        raise Unavailable(f"Not ready within {READY_WITHIN:g} s; this server goes on trying") from None
    if state.find(MEMBERS, member) is None:
        raise Unavailable("This server was removed from the cluster before it was ready")


async def ask_any(daemon: "Daemon", ticket: Ticket, ask: Accept) -> Accepted:
    """Offer the token to one address after the other: spent once, whoever answers. Raises the first refusal,
    or Unavailable; a server that was removed since the token was made is at its address still, and no member.
    """
    context = pinned_client(daemon.keys, ticket.fingerprint)
    failures = []
    for address in ticket.addresses:
        try:
            return await _offer(address, context, ask)
        except (ssl.SSLError, aiohttp.ClientSSLError):
            failures.append(f"{address}: it does not have the certificate the token is pinned to")
        except (aiohttp.ClientError, OSError, TimeoutError, Unavailable, Uncertain) as failure:
            failures.append(f"{address}: {str(failure) or 'timed out'}")
    raise Unavailable(f"No member of the cluster answers ({'; '.join(failures)})")


async def _offer(address: str, context: ssl.SSLContext, ask: Accept) -> Accepted:
    timeout = aiohttp.ClientTimeout(total=ACCEPT_WITHIN, sock_connect=CONNECT_WITHIN)
    body = msgspec.json.encode(ask)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"https://{address}/internal/1.0/cluster/accept", data=body, ssl=context) as reply,
    ):
        envelope = msgspec.json.decode(await reply.read(), type=Json)
        if reply.status != 200:
            raise error_of(reply.status, str(envelope.get("error")))
        return msgspec.convert(envelope["metadata"], Accepted)


def knows_token(state: State, secret: str) -> bool:
    """Whether a join token with that secret may still be spent. Its use in the log is what counts."""
    hashed, now = hash_of(secret), time.time()
    return any(
        row.kind == "member" and row.secret_hash == hashed and not 0 < row.expires_at <= now
        for row in state.rows(TOKENS).values()
    )
