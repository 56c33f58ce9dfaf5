"""/1.0/cluster/certificate, and the members' own certificates."""

from aiohttp import web

from cluster.errors import Conflict, Invalid, Unavailable
from cluster.membership.certificates import ReplaceClusterCertificate, fingerprints_of
from cluster.membership.model import MEMBERS, is_clustered, member_named
from cluster.tls import certificates
from lxdpy.resources.cluster import renewal
from lxdpy.resources.cluster.model import CertificatePost, ClusterCertificatePut, Trust
from lxdpy.resources.wire import url
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/cluster")
internal = Routes("/internal/1.0/cluster")


@routes.on("PUT", "/certificate", body=ClusterCertificatePut, entitlement="admin")
async def replace_certificate(call: Call[ClusterCertificatePut]) -> web.Response:
    """Of all members at once; those that are down show it when they are back."""
    if not is_clustered(call.state):
        raise Invalid("This server is not clustered")
    certificate, key = call.body.cluster_certificate, call.body.cluster_certificate_key
    check_pair(certificate, key)
    await call.store.propose(ReplaceClusterCertificate(certificate, key))
    await call.daemon.membership.refresh()
    return sync()


def owner(call: AnyCall) -> str:
    return member_named(call.state, call.path("name")).id


@routes.on("POST", "/members/{name}/certificate", body=CertificatePost, entitlement="admin", owner=owner)
async def renew_certificate(call: Call[CertificatePost]) -> web.Response:
    """Of one member, by which the others know it. Without a body it makes one itself."""
    daemon, body = call.daemon, call.body
    if body.certificate or body.key:
        check_pair(body.certificate, body.key)
    if away := renewal.offline(daemon):
        names = ", ".join(away)
        raise Conflict(f"Offline members would not know it again: {names}; bring them back or remove them")
    fingerprint = await renewal.begin(daemon, body.certificate, body.key)
    resources = {"cluster": [url("cluster/members", call.path("name"))]}
    work = daemon.operations.start(
        "Renewing server certificate", resources, lambda _: renewal.renewed(daemon, fingerprint)
    )
    return asynchronous(work)


@internal.on("POST", "/trust", body=Trust, internal=True)
async def trust(call: Call[Trust]) -> web.Response:
    """Whether this member has heard of another one's certificate and lets it in with it. Or Unavailable."""
    state = await call.store.read_index()
    row = state.find(MEMBERS, call.body.member)
    if row is None or call.body.fingerprint not in fingerprints_of(row):
        raise Unavailable("The certificate was not announced")
    await call.daemon.membership.refresh()
    return sync()


def check_pair(certificate: str, key: str) -> None:
    """Raises Invalid, in LXD's words where it has some."""
    if "-----BEGIN CERTIFICATE-----" not in certificate:
        raise Invalid("Certificate must be base64 encoded PEM certificate", key="certificate")
    if "-----BEGIN" not in key:
        raise Invalid("Private key must be base64 encoded PEM key", key="key")
    certificates.check_match(certificate, key)
