"""PURE: ETags. A hash of the fields a caller may change, so that an update of an older version is refused."""

import hashlib

import msgspec

from cluster.errors import Stale
from cluster.state.plain import plain


def etag_of(*fields: object) -> str:
    """SHA-256 in hex. Clients only echo it, so it need not be LXD's."""
    return hashlib.sha256(msgspec.json.encode(plain(fields), order="sorted")).hexdigest()


def check_etag(given: str, current: str) -> None:
    """Raises Stale if `given` (an If-Match header's value, "" for none) is of another version."""
    wanted = given.strip().strip('"')
    if wanted and wanted != current:
        raise Stale(f"ETag doesn't match: {current} vs {wanted}")
