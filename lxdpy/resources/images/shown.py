"""Images as clients see them, and which ones a caller may see."""

import time
from typing import Any

from cluster.errors import Forbidden, Invalid, NotFound
from cluster.membership.model import TOKENS, Token
from cluster.membership.tokens import hash_of
from cluster.state.txn import State
from lxdpy.resources.images.find import by_fingerprint
from lxdpy.resources.images.model import ALIASES, Alias, Image, Remote
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.route import AnyCall

EPOCH = "1970-01-01T00:00:00Z"  # LXD's "never" for images


def found(call: AnyCall) -> Image:
    """The image of the path; strangers see public ones only, and learn nothing of others."""
    own = home(call.state, call.project, "images")
    try:
        row = by_fingerprint(call.state, own, call.path("fingerprint"))
    except Invalid:
        if call.identity.trusted:
            raise
        raise NotFound("Image not found") from None
    if not (row.public or call.identity.sees(call.project) or opens(call.state, row, call.query("secret"))):
        if call.identity.trusted:
            raise Forbidden("not authorized")
        raise NotFound("Image not found")
    return row


def opens(state: State, row: Image, secret: str) -> bool:
    """Whether the secret is one that was made for the image."""
    return token_of(state, "image", row.project, row.fingerprint, secret) is not None


def token_of(state: State, kind: str, project: str, fingerprint: str, secret: str) -> Token | None:
    hashed, now = hash_of(secret), time.time()
    for token in state.rows(TOKENS).values():
        if (token.kind, token.secret_hash, token.name) == (kind, hashed, fingerprint):
            return token if token.projects == (project,) and now < token.expires_at else None
    return None


def by_target(state: State, project: str) -> dict[str, list[Alias]]:
    """Aliases by fingerprint."""
    named: dict[str, list[Alias]] = {}
    for _, row in sorted(state.rows(ALIASES).items()):
        if row.project == project:
            named.setdefault(row.target, []).append(row)
    return named


def wire(row: Image, aliases: list[Alias]) -> dict[str, Any]:
    return {
        "auto_update": row.auto_update,
        "properties": row.properties,
        "public": row.public,
        "expires_at": rfc3339(row.expires_at, EPOCH),
        "profiles": list(row.profiles),
        "aliases": [{"name": a.name, "description": a.description} for a in aliases],
        "architecture": row.architecture,
        "cached": row.cached,
        "filename": row.filename,
        "fingerprint": row.fingerprint,
        "size": row.size,
        "type": "container",
        "created_at": rfc3339(row.created_at, EPOCH),
        "last_used_at": rfc3339(row.last_used_at),
        "uploaded_at": rfc3339(row.uploaded_at),
    } | ({"update_source": of_remote(row.remote)} if row.remote else {})


def of_remote(remote: Remote) -> dict[str, str]:
    return {
        "alias": remote.alias,
        "certificate": remote.certificate,
        "protocol": remote.protocol,
        "server": remote.server,
        "image_type": "container",
    }
