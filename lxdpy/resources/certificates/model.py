"""Trusted certificates: rows and bodies."""

from typing import Literal

import msgspec

from cluster.state.table import Stored, Table


class Certificate(Stored, frozen=True):
    """A certificate that is trusted. Key: fingerprint (SHA-256 of the DER form, hex)."""

    fingerprint: str
    certificate: str  # PEM
    name: str = ""
    type: Literal["client", "server", "metrics"] = "client"
    restricted: bool = False
    projects: tuple[str, ...] = ()


CERTIFICATES: Table[Certificate] = Table("certificates", Certificate)


class CertificatesPost(msgspec.Struct):
    name: str = ""
    type: str = ""
    restricted: bool = False
    projects: list[str] | None = None
    certificate: str = ""  # base64 of DER; empty: the one of this connection
    password: str = ""  # trust password, or the secret of a token
    token: bool = False


class CertificatePut(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    restricted: bool | None = None
    projects: list[str] | None = None
    certificate: str = ""
