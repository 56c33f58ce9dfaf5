"""What a member must know before its log is open: who it is, where it listens, whom it dials and trusts.

A cache of rows of the replicated state, kept in `$LXD_DIR/cluster/identity.json` and rewritten whenever those
rows change: the listener has to be up and the peers have to be dialled before the first entry can be applied.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cluster.errors import Error


class Peer(msgspec.Struct, frozen=True):
    """A member as the transport sees it."""

    address: str
    certificate: str  # PEM; two of them while one takes the other's place


class Voters(msgspec.Struct, frozen=True):
    """Who voted, as of a log index: one member tells another that may have been away."""

    index: int = 0
    peers: dict[str, Peer] = {}


class Identity(msgspec.Struct, frozen=True):
    """Who this member is. `voters` counts only while the log is empty: for a member that has just joined.

    While `fresh` it has no log yet: what lies in its place is another identity's, or of a start that failed.
    """

    cluster_id: str
    member_id: str
    founder: bool = True  # false: came by a token, so an empty log is filled by the others
    listen: str = ""  # core.https_address
    cluster_listen: str = ""  # cluster.https_address
    peers: dict[str, Peer] = {}
    voters: tuple[str, ...] = ()
    certificate: str = ""  # the cluster's, shown by the listener; empty: the member's own
    certificate_key: str = ""
    moved: dict[str, str] = {}  # addresses by member, told to the stopped daemon; until the state says so too
    fresh: bool = False
    removed: dict[str, str] = {}  # PEM by member, of those who were removed: they are told so when they dial
    own_keys: tuple[dict[str, str], ...] = ()  # of a joiner: what it was told of its parts of pools, networks
    index: int = 0  # of the log, up to which the peers are known: older states tell nothing of them

    def addresses(self) -> dict[str, str]:
        return {member: peer.address for member, peer in self.peers.items() if peer.address}


def relocated(identity: Identity, addresses: Mapping[str, str]) -> Identity:
    """With other addresses of members, by id: what a cluster needs that cannot meet at the old ones.

    Each member listens at its own new one and proposes it, as soon as enough of them have found each other.
    """
    me = identity.member_id
    before = identity.addresses().get(me, "")
    own = {
        name: addresses[me]
        for name in ("listen", "cluster_listen")
        if me in addresses and getattr(identity, name) == before
    }
    peers = {
        member: Peer(addresses.get(member, peer.address), peer.certificate)
        for member, peer in identity.peers.items()
    }
    return msgspec.structs.replace(identity, peers=peers, moved={**identity.moved, **addresses}, **own)


def introduced(identity: Identity, voters: Voters) -> Identity:
    """Knowing these as well, unless they are of an older state than what it knows: one of them may lead."""
    if voters.index < identity.index:
        return identity
    told = {
        member: Peer(identity.moved.get(member, peer.address), peer.certificate)
        for member, peer in voters.peers.items()
    }
    shown = {peer.certificate for peer in told.values()}  # who was removed and joined again has another id
    kept = {member: peer for member, peer in identity.peers.items() if peer.certificate not in shown}
    return msgspec.structs.replace(identity, peers=kept | told, index=voters.index)


class DamagedIdentity(Error):
    """The identity file cannot be read: starting without it would found a second cluster."""


def path_of(root: Path) -> Path:
    return root / "cluster" / "identity.json"


def new_identity(member_id: str) -> Identity:
    """Of a fresh daemon: a cluster of its own."""
    return Identity(cluster_id=secrets.token_hex(16), member_id=member_id, voters=(member_id,), fresh=True)


def load(root: Path) -> Identity | None:
    """None for a fresh daemon. Raises DamagedIdentity."""
    path = path_of(root)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as damage:
        raise DamagedIdentity(f"{path}: {damage}", path=str(path)) from damage


def save(root: Path, identity: Identity) -> None:
    """Atomic and durable; readable by root only, as the cluster's key is in it."""
    path = path_of(root)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, msgspec.json.encode(identity))
        os.fsync(handle)
    finally:
        os.close(handle)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
