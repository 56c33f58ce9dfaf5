"""PURE: which proxy a request of the daemon's own goes through."""

from urllib.parse import urlsplit

from cluster.state.txn import State
from lxdpy.resources.server.model import setting


def proxy_for(state: State, url: str) -> str:
    """The proxy's URL, or "" for none. `core.proxy_ignore_hosts` names hosts, `.domains`, or all by `*`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    for ignored in setting(state, "core.proxy_ignore_hosts").lower().split(","):
        name = ignored.strip().removeprefix("*.").removeprefix(".")
        if name and (name in ("*", host) or host.endswith(f".{name}")):
            return ""
    return setting(state, f"core.proxy_{parts.scheme}")
