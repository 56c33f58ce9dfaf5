"""Connections of who is not trusted any more end at once, and so do their websockets.

New requests are judged by the state as it is; this is for those that are under way: a request by whose
behalf it is made, so also where it was forwarded to, and a connection by the certificate it was opened with.
"""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from cluster.membership.certificates import fingerprints_of
from cluster.state.txn import Change
from lxdpy.rest.auth import Identity
from lxdpy.rest.listener import peer_of


class Live:
    """Requests that are being answered, each by who asked first."""

    def __init__(self) -> None:
        self._requests: dict[int, tuple[web.BaseRequest, str]] = {}

    def begin(self, request: web.BaseRequest, identity: Identity) -> None:
        if identity.protocol in ("tls", "cluster"):
            self._requests[id(request)] = (request, identity.username)

    def end(self, request: web.BaseRequest) -> None:
        self._requests.pop(id(request), None)

    def cut(self, withdrawn: frozenset[str], server: web.Server) -> None:
        """End what goes on for these certificates (fingerprints), idle connections included.

        Who withdraws its own is answered: on its connection it is a stranger from then on.
        """
        answered = {request.transport for request, _ in self._requests.values() if _changes_trust(request)}
        theirs = [request.transport for request, asked in self._requests.values() if asked in withdrawn]
        opened = [connection.transport for connection in server.connections]
        theirs += [one for one in opened if one is not None and peer_of(one).fingerprint in withdrawn]
        for transport in theirs:
            if transport is not None and transport not in answered:
                transport.abort()


def _changes_trust(request: web.BaseRequest) -> bool:
    return request.method in ("PUT", "PATCH", "DELETE") and request.path.startswith("/1.0/certificates/")


def withdrawn_by(changes: Iterable[Change]) -> frozenset[str]:
    """Fingerprints of certificates that have fewer rights than before, or other ones."""
    found: set[str] = set()
    for change in changes:
        if change.before is None:
            continue
        if change.table == "certificates" and rights_of(change.before) != rights_of(change.after):
            found.add(change.before.fingerprint)
        elif change.table == "members":
            kept = fingerprints_of(change.after) if change.after is not None else frozenset()
            found |= fingerprints_of(change.before) - kept
    return frozenset(found)


def rights_of(row: Any) -> object:
    """Of a trusted certificate: all but its name."""
    return row and (row.fingerprint, row.type, row.restricted, row.projects)
