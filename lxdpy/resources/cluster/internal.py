"""/internal/1.0/cluster: what members, and one that would be one, say to each other."""

import time

from aiohttp import web

from cluster import failpoints
from cluster.errors import Conflict, Forbidden
from cluster.membership.commands import JoinMember
from cluster.membership.model import MEMBERS, Member
from cluster.membership.tokens import hash_of
from cluster.tls.certificates import fingerprint_of, pem_to_der
from lxdpy.resources.cluster import actions
from lxdpy.resources.cluster.model import Accept
from lxdpy.resources.cluster.rejoin import accepted
from lxdpy.rest.auth import peer_fingerprint
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/internal/1.0/cluster")

MOST_SKEW = 60.0  # seconds by which clocks may differ: tokens expire by them, and changes are dated


@routes.on("POST", "/accept", body=Accept, untrusted=True)
async def accept_member(call: Call[Accept]) -> web.Response:
    """A joiner offers its token. Its certificate is the one it proved to have in the handshake."""
    asked = call.body
    if peer_fingerprint(call.request) != fingerprint_of(pem_to_der(asked.certificate)):
        raise Forbidden("The certificate is not that of the connection")
    state = await call.store.read_index()
    if not is_same(state.find(MEMBERS, asked.member_id), asked):
        if not actions.knows_token(state, asked.secret):
            raise Forbidden("No such join token: it is wrong, has expired, was used or revoked")
        check_clock(asked.now - time.time())
        state = await call.store.propose(JoinMember(hash_of(asked.secret), member_of(asked)))
        await failpoints.reach("join.recorded")
    return sync(accepted(call.store, state))


def member_of(asked: Accept) -> Member:
    return Member(
        id=asked.member_id,
        name=asked.name,
        address=asked.address,
        certificate=asked.certificate,
        fingerprint=fingerprint_of(asked.certificate),
        architecture=asked.architecture,
        features=asked.features,
        version=asked.version,
    )


def is_same(known: Member | None, asked: Accept) -> bool:
    """Whether it was let in already, and the answer got lost."""
    return known is not None and (known.status, known.certificate) == ("joining", asked.certificate)


def check_clock(ahead: float) -> None:
    """Raises Conflict when the joiner's clock differs too much from this member's."""
    if abs(ahead) > MOST_SKEW:
        way = "ahead of" if ahead > 0 else "behind"
        raise Conflict(
            f"The joining server's clock is {abs(ahead):.0f} s {way} the cluster's: set it right, then join",
            skew=f"{ahead:.0f}",
        )
