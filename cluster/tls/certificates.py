"""Key pairs as LXD makes them: P-384, self-signed, valid for ten years; made once and kept.

The host names in a certificate are for people and foreign clients only: everything here trusts fingerprints.
A certificate may be used on both ends, because a member presents the one it serves with when it calls a peer.
"""

import getpass
import hashlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.errors import Invalid

LIFETIME = timedelta(days=3650)  # as LXD's
CLOCK_SKEW = timedelta(
    days=1
)  # members' clocks may differ; a certificate from tomorrow is refused by OpenSSL
ORGANIZATION = "lxdpy"
NAME_LIMIT = 64  # characters of a common name, X.520


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a certificate and its key are, both PEM."""

    certificate: Path
    key: Path

    def pem(self) -> str:
        """The certificate; Invalid when the file holds none."""
        text = self.certificate.read_text()
        pem_to_der(text)
        return text

    def der(self) -> bytes:
        return pem_to_der(self.certificate.read_text())

    def fingerprint(self) -> str:
        return fingerprint_of(self.der())


def make(name: str, hosts: Iterable[str] = ()) -> tuple[str, str]:
    """A new certificate and its key, both PEM; `hosts` are host names and addresses."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{getpass.getuser()}@{name}"[:NAME_LIMIT]),
        ]
    )
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=True, content_commitment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(_alternatives(name, hosts)), critical=False)
        .sign(key, hashes.SHA384())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem.decode()


def _alternatives(name: str, hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys((name, *hosts, "127.0.0.1", "::1")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if host.isascii():
                names.append(x509.DNSName(host))
    return names


def ensure(folder: Path, name: str, hosts: Iterable[str] = ()) -> KeyPair:
    """`name`.crt and `name`.key in `folder`, made if they are not there; an existing pair is never replaced.

    Invalid when the files are there but do not belong together. A crash in between leaves a key without a
    certificate, which the next call replaces: nothing was ever identified by it. An `adopt` that a crash cut
    short is finished.
    """
    pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
    fresh = prepared(pair)
    if fresh.certificate.exists() and not fresh.key.exists():
        fresh.certificate.replace(pair.certificate)
    if pair.certificate.exists():
        check(pair)
        return pair
    certificate, key = make(socket.gethostname(), hosts)
    folder.mkdir(parents=True, exist_ok=True)
    write(pair, certificate, key)
    return pair


def prepared(pair: KeyPair) -> KeyPair:
    """Where the pair is kept that will take the place of `pair`."""
    return KeyPair(pair.certificate.with_suffix(".next.crt"), pair.key.with_suffix(".next.key"))


def adopt(pair: KeyPair) -> None:
    """Put what was prepared in the place of `pair`: the key, then the certificate; `ensure` finishes it."""
    fresh = prepared(pair)
    check(fresh)
    fresh.key.replace(pair.key)
    sync_folder(pair.key.parent)
    fresh.certificate.replace(pair.certificate)
    sync_folder(pair.key.parent)


def write(pair: KeyPair, certificate: str, key: str) -> None:
    """Replace both files, the key (mode 0600) first; Invalid, and nothing written, when they do not match."""
    check_match(certificate, key)
    _replace(pair.key, key, 0o600)
    _replace(pair.certificate, certificate, 0o644)


def check(pair: KeyPair) -> None:
    """Invalid unless both files can be read and belong together."""
    try:
        check_match(pair.certificate.read_text(), pair.key.read_text())
    except (OSError, UnicodeDecodeError, Invalid) as error:
        raise Invalid(f"Bad key pair {pair.certificate}: {error}") from error


def check_match(certificate: str, key: str) -> None:
    """Invalid unless the key (PEM) is the certificate's."""
    try:
        private = serialization.load_pem_private_key(key.encode(), None)
        public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"Not a certificate and key in PEM form: {error}") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise Invalid("The certificate does not belong to the key")


def _replace(path: Path, text: str, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pem_to_der(pem: str) -> bytes:
    """The first certificate of a PEM text; Invalid when there is none."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise Invalid(f"Not a certificate in PEM form: {error}") from error


def pem_to_ders(pem: str) -> list[bytes]:
    """All certificates of a PEM text; Invalid when there is none."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise Invalid(f"Not a certificate in PEM form: {error}") from error
    return [one.public_bytes(serialization.Encoding.DER) for one in found]


def der_to_pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def fingerprint_of(certificate: bytes | str) -> str:
    """SHA-256 of the DER form in lower-case hex; from DER bytes or PEM text (Invalid when it is not PEM)."""
    der = pem_to_der(certificate) if isinstance(certificate, str) else certificate
    return hashlib.sha256(der).hexdigest()


def is_authority(pem: str) -> bool:
    """Whether it may sign others. Invalid when it is no PEM."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except ValueError as error:
        raise Invalid(f"Not a certificate in PEM form: {error}") from error


def common_name(der: bytes) -> str:
    """Of whom the certificate says it is; "" if of nobody."""
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
