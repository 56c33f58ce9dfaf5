"""Who is calling, and what they may do. This is the threat model.

Who connects:

* the unix socket: whoever its mode and group let open it is an admin, as with LXD: they could get root anyway
  by mounting the host's disk into an instance;
* HTTPS with a certificate in the trust store (replicated, by fingerprint): type `client` is an admin, or
  confined to its projects if restricted; type `metrics` may read metrics and is a stranger elsewhere;
* HTTPS with a member's certificate: protocol "cluster". May use /internal, and may say on whose behalf it
  forwards. A member is trusted wholly: it has the whole state and applies every command;
* anyone else, with another certificate or none: a stranger. Gets what routes marked `untrusted` give them:
  `/`, a part of `/1.0`, POST certificates with a token or the password, public images, others by a secret,
  POST of the image that a secret was made for, operations by their secret. So come other servers that send
  instances and volumes, or fetch them: their files pass through an rsync in a sandbox (`lxdpy.host.rsync`).

What is inside an instance connects to none of these, but to a socket of its own (`lxdpy.resources.guest`):
it is a stranger who may ask what its own instance's config says, and say that it has come up.

What is believed: the fingerprint of the TLS handshake, which proves possession of the key, and nothing that a
request says of itself. Headers of forwarded identities are believed from members only, and then say who asked
first: the fingerprint is looked up here again, so a certificate withdrawn meanwhile is refused. A route
without an entitlement is for admins, so forgetting one closes a door.
"""

import functools
import pwd
from typing import Literal

import msgspec
from aiohttp import web

from cluster.membership.model import MEMBERS
from cluster.state.txn import State
from lxdpy.resources.certificates.model import CERTIFICATES
from lxdpy.rest.listener import peer_of

FORWARDED_ADDRESS = "X-LXD-forwarded-address"
FORWARDED_USERNAME = "X-LXD-forwarded-username"
FORWARDED_PROTOCOL = "X-LXD-forwarded-protocol"
UNTRUSTED_REFUSED = (
    "X-LXD-authenticated"  # a client that wants 403 rather than a stranger's view sends "true"
)

Protocol = Literal["", "unix", "tls", "cluster"]

# First part of the path after /1.0: whose rows are in projects, so that a restricted certificate may change
# them.
IN_PROJECTS = frozenset(("instances", "containers", "images", "profiles", "networks", "events"))


class Identity(msgspec.Struct, frozen=True):
    """Who asked, as of the connection or as a member says."""

    protocol: Protocol = ""  # "" for strangers
    username: str = ""  # unix user, or fingerprint
    address: str = ""
    projects: tuple[str, ...] | None = None  # all it may touch; None: not restricted
    metrics: bool = False  # trusted for metrics only

    @property
    def trusted(self) -> bool:
        return self.protocol != "" and not self.metrics

    @property
    def admin(self) -> bool:
        return self.trusted and self.projects is None

    @property
    def is_member(self) -> bool:
        return self.protocol == "cluster"

    def sees(self, project: str) -> bool:
        """For lists over all projects."""
        return self.trusted and (self.projects is None or project in self.projects)

    def requestor(self) -> dict[str, str]:
        """As in lifecycle events."""
        return {"username": self.username, "protocol": self.protocol, "address": self.address}


def permits(identity: Identity, entitlement: str, project: str, path: str) -> bool:
    """The one place that says what an entitlement needs.

    `can_view_metrics`: trusted for anything; `can_view`: everyone trusted, within their projects; `admin`:
    not restricted; every other name (`can_edit`, `can_create_instances`, …): within their projects, on what
    lives in projects.
    """
    if entitlement == "can_view_metrics":
        return identity.protocol != ""
    if identity.admin:
        return True
    if not identity.trusted or entitlement == "admin":
        return False
    confined = in_projects(path)
    if confined and project and not identity.sees(project):
        return False
    return confined or entitlement == "can_view"


def in_projects(path: str) -> bool:
    parts = path.split("/", 4)
    noun = parts[2] if len(parts) > 2 else ""
    return noun in IN_PROJECTS or (noun == "storage-pools" and "/volumes" in path)


def identify(request: web.BaseRequest, state: State) -> Identity:
    """Of the connection, then of the headers if the connection is a member's."""
    peer = of_connection(request, state)
    if not peer.is_member or FORWARDED_PROTOCOL not in request.headers:
        return peer
    protocol = request.headers[FORWARDED_PROTOCOL]
    username = request.headers.get(FORWARDED_USERNAME, "")
    address = request.headers.get(FORWARDED_ADDRESS, "")
    if protocol == "unix":
        return Identity("unix", username, address)
    return of_fingerprint(username, address, state)


def of_connection(request: web.BaseRequest, state: State) -> Identity:
    peer = peer_of(request)
    if peer.kind == "unix":
        return Identity("unix", user_name(peer.uid), "@")
    return of_fingerprint(peer.fingerprint, peer.address, state)


def of_fingerprint(fingerprint: str, address: str, state: State) -> Identity:
    """Members first: their certificates are not in the table of clients'."""
    if not fingerprint:
        return Identity(address=address)
    if any(fingerprint in (m.fingerprint, m.next_fingerprint) for m in state.rows(MEMBERS).values()):
        return Identity("cluster", fingerprint, address)
    row = state.find(CERTIFICATES, fingerprint)
    if row is None:
        return Identity(username=fingerprint, address=address)
    protocol: Protocol = "cluster" if row.type == "server" else "tls"
    projects = row.projects if row.restricted else None
    return Identity(protocol, fingerprint, address, projects, row.type == "metrics")


def peer_fingerprint(request: web.BaseRequest) -> str:
    """SHA-256 of the certificate that the peer proved to have, "" if it showed none."""
    return peer_of(request).fingerprint


def peer_certificate(request: web.BaseRequest) -> bytes | None:
    """In DER form."""
    return peer_of(request).certificate or None


@functools.cache
def user_name(uid: int) -> str:
    """Of a unix socket's peer; the number, if it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
