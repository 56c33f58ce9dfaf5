"""PURE: which other server, and which image of it, a request means."""

from urllib.parse import urlsplit

from cluster.errors import Invalid, Unsupported
from cluster.tls.certificates import pem_to_der
from lxdpy.resources.images.model import Asked, ImageSource

PROTOCOLS = ("lxd", "simplestreams")


def asked_of(source: ImageSource) -> Asked:
    """Raises Invalid, Unsupported for a source that cannot be asked."""
    if (source.protocol or "lxd") not in PROTOCOLS:
        text = f'Unknown protocol "{source.protocol[:80]}" of a server: lxd or simplestreams'
        raise Unsupported(text, key="source.protocol")
    check_server(source.server, "source.server")
    if source.certificate:
        pem_to_der(source.certificate)
    if not source.alias and not source.fingerprint:
        raise Invalid("Must specify one of alias or fingerprint", key="source.fingerprint")
    return Asked(
        source.server, source.alias, source.fingerprint, source.certificate, source.protocol or "lxd",
        source.secret, source.project,
    )  # fmt: skip


def check_server(server: str, key: str) -> None:
    """Raises Invalid."""
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment:
        raise Invalid(f'Not a server: "{server[:200]}": https://address:port', key=key)
