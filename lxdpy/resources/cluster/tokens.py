"""Tokens as clients see them: operations of class "token", made from the rows, so every member lists them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cluster.errors import NotFound
from cluster.membership.commands import RevokeToken
from cluster.membership.model import MEMBERS, TOKENS, Token, the_cluster
from cluster.state.txn import State
from cluster.tls.certificates import fingerprint_of
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.wire import rfc3339, url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


class Tokens:
    """Operations that are rows. See `resources.operations.registry.Replicated`.

    A secret is known only where it was minted, until that daemon stops: rows hold its hash.
    """

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def find(self, state: State, id: str) -> OperationView | None:
        row = state.find(TOKENS, id)
        return self.view(row) if row else None

    def all(self, state: State) -> Iterable[OperationView]:
        """Oldest first."""
        rows = sorted(state.rows(TOKENS).values(), key=lambda row: (row.created_at, row.id))
        return [self.view(row) for row in rows]

    async def cancel(self, id: str) -> None:
        if self._daemon.state.find(TOKENS, id) is None:
            raise NotFound("Operation not found", operation=id)
        await self._daemon.store.propose(RevokeToken(id))

    def view(self, token: Token) -> OperationView:
        secret = self._daemon.membership.secrets.get(token.id, "")
        if token.kind in ("image", "upload"):
            path = url("images", token.name, project=next(iter(token.projects)))
            return view(token, "Image download token", {"images": [path]}, {"secret": secret})
        metadata: dict[str, Any] = {
            "secret": secret,
            "fingerprint": token.fingerprint,
            "addresses": list(token.addresses),
        }
        if token.kind == "member":
            metadata["serverName"] = token.name
        else:
            metadata["request"] = {
                "name": token.name,
                "type": "client",
                "restricted": token.restricted,
                "projects": list(token.projects),
                "certificate": "",
                "password": "",
                "token": True,
            }
        if token.expires_at:
            metadata["expiresAt"] = rfc3339(token.expires_at)
        resources = {"cluster": ["/1.0/cluster"]} if token.kind == "member" else None
        return view(token, "Executing operation", resources, metadata)


def view(
    token: Token, description: str, resources: dict[str, list[str]] | None, metadata: dict[str, Any]
) -> OperationView:
    created = rfc3339(token.created_at)
    return OperationView(
        id=token.id,
        kind="token",
        description=description,
        created_at=created,
        updated_at=created,
        resources=resources,
        metadata=metadata,
        may_cancel=True,
    )


def addresses(state: State) -> tuple[str, ...]:
    """Where a joiner or client may call, in no order."""
    found = {member.address for member in state.rows(MEMBERS).values() if member.address}
    return tuple(sorted(found))


def fingerprint(state: State, own: str) -> str:
    """SHA-256 of the certificate that every member's listener shows; `own` while not clustered."""
    shown = the_cluster(state).certificate
    return fingerprint_of(shown) if shown else own
