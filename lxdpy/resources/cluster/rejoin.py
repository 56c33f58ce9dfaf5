"""/internal/1.0/cluster/rejoin: for a stopped member that has to follow the log from its beginning."""

from typing import TYPE_CHECKING

from aiohttp import web

from cluster.errors import Conflict, Forbidden
from cluster.membership.certificates import fingerprints_of, pem_of
from cluster.membership.model import MEMBERS, the_cluster
from cluster.state.txn import State
from lxdpy.resources.cluster.model import Accepted, Known
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

if TYPE_CHECKING:
    from cluster.raft.store import Store

routes = Routes("/internal/1.0/cluster/rejoin")


def leader(call: AnyCall) -> str | None:
    return call.store.leader


@routes.on("POST", internal=True, owner=leader)
async def rejoin(call: Call[None]) -> web.Response:
    """Its log is lost, or that of a cluster which is no more.

    It loses its vote before it is told anything: it may have voted, and will not know for whom.
    """
    asking = call.identity.username
    state = await call.store.read_index()
    row = next((m for m in state.rows(MEMBERS).values() if asking in fingerprints_of(m)), None)
    if row is None:
        raise Forbidden("not authorized")
    if row.id == call.store.member_id or row.id in call.store.links:
        raise Conflict(f"Member {row.name} runs: stop it first", member=row.name)
    await call.store.remove_voter(row.id)
    return sync(accepted(call.store, state))


def accepted(store: "Store", state: State) -> Accepted:
    """What a member needs to know to follow the log."""
    cluster = the_cluster(state)
    return Accepted(
        cluster_id=store.cluster_id,  # after a recovery another than the row was founded with
        members={m.id: Known(m.address, pem_of(m)) for m in state.rows(MEMBERS).values()},
        voters=sorted(store.voters),
        certificate=cluster.certificate,
        certificate_key=cluster.certificate_key,
        index=state.index,
    )
