"""Join tokens: mint, print, parse. The same base64 JSON as LXD's, so its client prints and reads them."""

import base64
import binascii
import hashlib
import secrets

import msgspec

from cluster.errors import Invalid


class JoinToken(msgspec.Struct, frozen=True):
    """What an operator carries to the joining host. Names as in LXD's token."""

    server_name: str
    fingerprint: str  # SHA-256 of the certificate the joiner must see
    addresses: list[str]
    secret: str
    expires_at: str = "0001-01-01T00:00:00Z"

    def printed(self) -> str:
        return base64.b64encode(msgspec.json.encode(self)).decode()


def new_secret() -> str:
    """32 random bytes as hex."""
    return secrets.token_hex(32)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def parse(text: str) -> JoinToken:
    """Raises Invalid."""
    try:
        return msgspec.json.decode(base64.b64decode(text.strip(), validate=True), type=JoinToken)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise Invalid("Not a join token: it is what `lxc cluster add <name>` prints") from None
