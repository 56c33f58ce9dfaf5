"""A small simplestreams server: files over HTTPS, told by files beside them how to misbehave.

python -m integration.streams FOLDER ADDRESS PORT

FOLDER has `server.pem` (certificate and key) and `files`. While there is `hold` no image's second half is
sent; while there is `cut` the connection ends after the first. `requests` has the paths that were asked for.
"""

import asyncio
import hashlib
import ipaddress
import json
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from integration.harness import eventually
from integration.instances import kept
from lxdpy.dev.members import Cluster
from lxdpy.dev.netns import SWITCH
from lxdpy.host.build import build_busybox
from lxdpy.host.image_archive import pack, unpack

PORT = 8444
LIST = "streams/v1/images.json"
PAUSE = 0.02  # seconds


class Streams:
    """What the server has; `server` is where."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.server = f"https://{address}:{PORT}"
        self.authority = folder / "authority.pem"
        (folder / "files").mkdir()
        self._versions: dict[str, Any] = {}
        make_certificates(folder, address)

    def requests(self, word: str) -> int:
        """How often a path with that word in it was asked for."""
        log = self.folder / "requests"
        return sum(word in line for line in log.read_text().splitlines()) if log.exists() else 0

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """`hold` or `cut` meanwhile."""
        (self.folder / what).touch()
        try:
            yield
        finally:
            (self.folder / what).unlink()

    def publish(self, serial: str, release: str = "3.18", wrong: str = "", form: str = "squashfs") -> str:
        """Another version of `alpine/<release>`; its fingerprint. `wrong` is told instead of that."""
        path = f"images/{release}/{serial}"
        folder = self.folder / "files" / path
        folder.mkdir(parents=True)
        rootfs = "rootfs.squashfs" if form == "squashfs" else "root.tar.xz"
        make_image(folder, serial, rootfs)
        files = {"lxd.tar.xz": folder / "lxd.tar.xz", form: folder / rootfs}
        items = {
            kind: {"ftype": kind, "path": f"{path}/{file.name}", "size": file.stat().st_size}
            for kind, file in files.items()
        }
        fingerprint = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
        combined = "combined_squashfs_sha256" if form == "squashfs" else "combined_rootxz_sha256"
        items["lxd.tar.xz"][combined] = wrong or fingerprint
        self._versions.setdefault(release, {})[serial] = {"items": items}
        self._tell()
        return fingerprint

    def _tell(self) -> None:
        lists = self.folder / "files/streams/v1"
        lists.mkdir(parents=True, exist_ok=True)
        products = {
            f"alpine:{release}:amd64:default": {
                "aliases": f"alpine/{release}/default,alpine/{release}", "arch": "amd64", "os": "alpine",
                "release": release, "release_title": release, "variant": "default", "versions": versions,
            }
            for release, versions in self._versions.items()
        }  # fmt: skip
        said = {"content_id": "images", "datatype": "image-downloads", "format": "products:1.0"}
        (lists / "images.json").write_text(json.dumps(said | {"products": products}))
        stream = {"datatype": "image-downloads", "path": LIST, "products": list(products)}
        index = {"format": "index:1.0", "index": {"images": stream}}
        (lists / "index.json").write_text(json.dumps(index))


def make_image(folder: Path, serial: str, rootfs: str) -> None:
    """Busybox in two files, with the serial inside."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        tree = Path(name)
        asyncio.run(unpack(kept("busybox", build_busybox), tree))
        (tree / "rootfs/serial").write_text(f"{serial}\n")
        with tarfile.open(folder / "lxd.tar.xz", "w:xz") as tar:
            for part in ("metadata.yaml", "templates"):
                if (tree / part).exists():
                    tar.add(tree / part, part)
        names = tuple(path.name for path in (tree / "rootfs").iterdir())
        compression = "squashfs" if rootfs.endswith("squashfs") else "xz -0"
        asyncio.run(pack(tree / "rootfs", folder / rootfs, compression, names=names))


def make_certificates(folder: Path, address: str) -> None:
    """`authority.pem`, and `server.pem` that it has signed for the address."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "server")
    ]
    now = datetime.now(UTC)
    made = []
    for number, (key, name) in enumerate(zip(keys, names, strict=True)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=not number, path_length=None), critical=True)
        )
        if number:
            alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(alternative, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "authority.pem").write_bytes(made[0])
    (folder / "server.pem").write_bytes(made[1] + private)


@contextmanager
def serving(cluster: Cluster, streams: Streams) -> Iterator[None]:
    """Where all members reach it."""
    words = [sys.executable, "-m", "integration.streams", str(streams.folder), streams.address, str(PORT)]
    with (streams.folder / "log").open("wb") as log:
        environment = {"PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen(cluster.net.enter(SWITCH, *words), stderr=log, env=environment)
    try:
        eventually(lambda: (streams.folder / "ready").exists(), within=30)
        yield
    finally:
        process.kill()
        process.wait()


class Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        with (self.folder / "requests").open("a") as log:
            log.write(f"{self.path}\n")
        file = self.folder / "files" / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        half = len(content) // 2 if "images/" in self.path else len(content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:half])
        self.wfile.flush()
        if half < len(content) and (self.folder / "cut").exists():
            self.close_connection = True
            return
        while half < len(content) and (self.folder / "hold").exists():
            time.sleep(PAUSE)
        self.wfile.write(content[half:])


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Handler.folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (Handler.folder / "ready").touch()
    server.serve_forever()


if __name__ == "__main__":
    main()
