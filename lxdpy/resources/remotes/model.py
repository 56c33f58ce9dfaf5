"""Where another server waits: in bodies, and between members."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from cluster.errors import Invalid

CONTROL, FILES = "control", "fs"
OPERATIONS = "/1.0/operations/"


class Peer(msgspec.Struct, frozen=True):
    """An operation of another server that waits for its two websockets."""

    operation: str  # its URL
    certificate: str  # PEM; "": one that the host's authorities vouch for
    secrets: dict[str, str]

    @property
    def websocket(self) -> str:
        return f"{self.operation.rstrip('/').replace('https://', 'wss://', 1)}/websocket"


class Arrival(msgspec.Struct, frozen=True):
    """What the owner of a new instance is told before the row is there. Between members."""

    operation: str  # id of that which will build it
    alone: bool = False  # without snapshots
    peer: Peer | None = None  # None: the source will call


class Target(msgspec.Struct):
    """`target` of a migration's request: where to send it."""

    certificate: str = ""
    operation: str = ""
    secrets: dict[str, str] | None = None


def peer_of(operation: str, certificate: str, secrets: Mapping[str, str] | None, where: str) -> Peer:
    """`where` is the key of the body that has them. Raises Invalid."""
    parts = urlsplit(operation)
    if parts.scheme != "https" or not parts.netloc or not parts.path.startswith(OPERATIONS):
        raise Invalid(
            f'{where}.operation: "{operation}" is not the https:// URL of an operation',
            key=f"{where}.operation",
            value=operation,
        )
    for name in (CONTROL, FILES):
        if not (secrets or {}).get(name):
            raise Invalid(f"Missing {name} secret", key=f"{where}.secrets")
    plain = parts._replace(query="", fragment="").geturl()
    return Peer(plain, certificate, {name: dict(secrets or {})[name] for name in (CONTROL, FILES)})
