"""/1.0/certificates: the trust store, and how a client gets into it."""

import asyncio
import base64
import binascii
import time
from typing import Any, Literal

import msgspec
from aiohttp import web

from cluster.errors import AlreadyExists, Forbidden, Invalid
from cluster.ids import operation_id
from cluster.membership.commands import CreateToken
from cluster.membership.model import TOKENS, Token, is_clustered, members
from cluster.membership.tokens import hash_of, new_secret
from cluster.state.etag import etag_of
from cluster.state.txn import State
from cluster.tls.certificates import common_name, der_to_pem, fingerprint_of, pem_to_der
from lxdpy.config.times import expiry
from lxdpy.resources.certificates.commands import DistrustCertificate, TrustCertificate, UpdateCertificate
from lxdpy.resources.certificates.model import (
    CERTIFICATES,
    Certificate,
    CertificatePut,
    CertificatesPost,
)
from lxdpy.resources.certificates.password import matches
from lxdpy.resources.cluster.tokens import Tokens, addresses, fingerprint
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.server.addresses import reachable
from lxdpy.resources.server.model import setting
from lxdpy.resources.wire import url
from lxdpy.rest.auth import peer_certificate
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/certificates")

TYPES: dict[str, Literal["client", "server", "metrics"]] = {
    "client": "client", "server": "server", "metrics": "metrics",
}  # fmt: skip


class Printed(msgspec.Struct):
    """The part of a printed token that a server needs."""

    secret: str


@routes.on("GET", entitlement="can_view")
async def list_certificates(call: Call[None]) -> web.Response:
    rows = [row for _, row in sorted(trusted(call.state).items())]
    return sync([wire(row) if call.recursive else url("certificates", row.fingerprint) for row in rows])


@routes.on("POST", body=CertificatesPost, untrusted=True)
async def add_certificate(call: Call[CertificatesPost]) -> web.Response:
    if call.identity.trusted and not call.identity.admin:
        raise Invalid("Client is already trusted")
    body = call.body
    if body.token:
        return await create_token(call)
    secret_hash = "" if call.identity.admin else await spend(call)
    der = certificate_of(call)
    if body.type not in TYPES and call.identity.admin:
        raise Invalid(f'Invalid certificate type "{body.type}": client, server or metrics', key="type")
    check_projects(call, body.projects if call.identity.admin else None)
    mark = fingerprint_of(der)
    if call.identity.admin and mark in call.state.rows(CERTIFICATES):
        raise AlreadyExists("Certificate already in trust store", fingerprint=mark)
    row = Certificate(
        fingerprint=mark,
        certificate=der_to_pem(der),
        name=body.name or common_name(der) or mark[:12],
        type=TYPES.get(body.type, "client"),
        restricted=body.restricted,
        projects=tuple(body.projects or ()),
    )
    if not call.identity.admin:
        row = Certificate(mark, row.certificate, row.name)
    await call.store.propose(TrustCertificate(row, secret_hash))
    return sync(location=url("certificates", mark))


async def create_token(call: Call[CertificatesPost]) -> web.Response:
    if not call.identity.admin:
        raise Forbidden("not authorized")
    if call.body.type != "client":
        raise Invalid("Tokens can only be issued for client certificates", key="type")
    check_projects(call, call.body.projects)
    daemon, now = call.daemon, time.time()
    listening = daemon.membership.listening()
    where = addresses(call.state) or tuple(await asyncio.to_thread(reachable, listening))
    if not where:
        raise Invalid("Can't issue token when server isn't listening on network", key="token")
    secret, span = new_secret(), setting(call.state, "core.remote_token_expiry")
    token = Token(
        id=operation_id(daemon.member_id),
        kind="client",
        name=call.body.name,
        secret_hash=hash_of(secret),
        created_at=now,
        expires_at=expiry(span).after(now) if span else 0.0,
        fingerprint=fingerprint(call.state, daemon.keys.fingerprint()),
        addresses=where,
        restricted=call.body.restricted,
        projects=tuple(call.body.projects or ()),
    )
    await call.store.propose(CreateToken(token))
    daemon.membership.secrets[token.id] = secret
    return asynchronous(Tokens(daemon).view(token))


async def spend(call: Call[CertificatesPost]) -> str:
    """The hash of the token's secret that a stranger offers; "" if it knew the password. Raises Forbidden."""
    offered = call.body.password
    if call.identity.protocol:
        raise Invalid("Client is already trusted")
    if not offered:
        raise Forbidden("not authorized")
    stored = setting(call.state, "core.trust_password")
    if stored and await matches(offered, stored):
        return ""
    hashed = hash_of(secret_in(offered))
    state = await call.store.read_index()  # strangers must not be able to write to the log by guessing
    if not any(t.kind == "client" and t.secret_hash == hashed for t in state.rows(TOKENS).values()):
        raise Forbidden("not authorized")
    return hashed


def secret_in(offered: str) -> str:
    """The secret of a printed token (base64 JSON, as LXD's client sends it), or what was offered itself."""
    try:
        return msgspec.json.decode(base64.b64decode(offered, validate=True), type=Printed).secret
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return offered


def certificate_of(call: Call[CertificatesPost]) -> bytes:
    """DER of the certificate to trust: an admin's word, else what the connection proved. Raises Invalid."""
    if call.identity.admin:
        if not call.body.certificate:
            raise Invalid("Client is already trusted", key="certificate")
        return decoded(call.body.certificate)
    der = peer_certificate(call.request)
    if der is None:
        raise Invalid("No client certificate was presented", key="certificate")
    return der


def decoded(text: str) -> bytes:
    """DER of a certificate in PEM form or, as clients send it, in base64 of DER, in lines or not.

    Raises Invalid.
    """
    if "-----BEGIN" in text:
        return pem_to_der(text)
    try:
        return pem_to_der(der_to_pem(base64.b64decode("".join(text.split()), validate=True)))
    except (binascii.Error, ValueError, Invalid):
        raise Invalid("Not a certificate: base64 of its DER form, or PEM", key="certificate") from None


@routes.on("GET", "/{fingerprint}", entitlement="can_view")
async def show_certificate(call: Call[None]) -> web.Response:
    row = found(call)
    return sync(wire(row), etag=etag_of(row))


@routes.on("PUT", "/{fingerprint}", body=CertificatePut, entitlement="can_view")
async def update_certificate(call: Call[CertificatePut]) -> web.Response:
    return await update(call, own(call))


@routes.on("PATCH", "/{fingerprint}", body=CertificatePut, entitlement="can_view")
async def patch_certificate(call: Call[CertificatePut]) -> web.Response:
    row, body = own(call), call.body
    body.name = row.name if body.name is None else body.name
    body.type = body.type or row.type
    body.restricted = row.restricted if body.restricted is None else body.restricted
    body.projects = body.projects if body.projects is not None else list(row.projects)
    return await update(call, row)


async def update(call: Call[CertificatePut], row: Certificate) -> web.Response:
    """Who is restricted may put another certificate in its own one's place, and change nothing else."""
    body, admin = call.body, call.identity.admin
    if not admin and call.identity.username != row.fingerprint:
        raise Forbidden("not authorized")
    if body.type != row.type:
        raise Forbidden("The certificate type cannot be changed", key="type")
    said = (body.name or "", bool(body.restricted), tuple(body.projects or ()))
    if not admin and said != (row.name, row.restricted, row.projects):
        raise Forbidden("Only the certificate can be changed")
    check_projects(call, body.projects)
    der = decoded(body.certificate) if body.certificate else pem_to_der(row.certificate)
    new = Certificate(
        fingerprint=fingerprint_of(der),
        certificate=der_to_pem(der),
        name=said[0],
        type=row.type,
        restricted=said[1],
        projects=said[2],
    )
    etag = call.etag or ("" if admin else etag_of(row))  # not over what an admin has changed meanwhile
    await call.store.propose(UpdateCertificate(row.fingerprint, new, etag))
    return sync()


def check_projects(call: AnyCall, names: list[str] | None) -> None:
    """Raises NotFound."""
    for name in names or []:
        call.state.get(PROJECTS, name)


@routes.on("DELETE", "/{fingerprint}", entitlement="admin")
async def delete_certificate(call: Call[None]) -> web.Response:
    await call.store.propose(DistrustCertificate(own(call).fingerprint))
    return sync()


def found(call: AnyCall) -> Certificate:
    """By fingerprint or the beginning of one that is unambiguous, as LXD's client sends it."""
    start = call.path("fingerprint")
    rows = [row for key, row in trusted(call.state).items() if key.startswith(start)]
    if len(rows) > 1:
        raise Invalid(f"More than one certificate begins with {start}", fingerprint=start)
    return rows[0] if rows and start else call.state.get(CERTIFICATES, start)


def own(call: AnyCall) -> Certificate:
    """One that can be changed: a member's lasts as long as its membership. Raises Invalid."""
    row = found(call)
    if row.fingerprint not in call.state.rows(CERTIFICATES):
        raise Invalid(f"The certificate belongs to cluster member {row.name}", fingerprint=row.fingerprint)
    return row


def trusted(state: State) -> dict[str, Certificate]:
    """By fingerprint: those in the trust store, and the members' own, which LXD shows among them."""
    rows = dict(state.rows(CERTIFICATES))
    if is_clustered(state):
        for member in members(state):
            rows[member.fingerprint] = Certificate(
                member.fingerprint, member.certificate, member.name, "server"
            )
    return rows


def wire(row: Certificate) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.type,
        "restricted": row.restricted,
        "projects": list(row.projects),
        "certificate": row.certificate,
        "fingerprint": row.fingerprint,
    }
