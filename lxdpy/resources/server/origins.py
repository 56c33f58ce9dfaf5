"""PURE: what browsers are told that pages of another origin may do with the API."""

from cluster.state.txn import State
from lxdpy.resources.server.model import setting

HEADERS = {
    "Access-Control-Allow-Origin": "core.https_allowed_origin",
    "Access-Control-Allow-Methods": "core.https_allowed_methods",
    "Access-Control-Allow-Headers": "core.https_allowed_headers",
}
CREDENTIALS = "core.https_allowed_credentials"


def headers_for(state: State, origin: str) -> dict[str, str]:
    """Of an answer to a page of that origin; "" for a client that is no browser."""
    if not origin:
        return {}
    found = {header: value for header, key in HEADERS.items() if (value := setting(state, key))}
    if setting(state, CREDENTIALS).lower() in ("true", "1", "yes", "on"):
        found["Access-Control-Allow-Credentials"] = "true"
    return found
