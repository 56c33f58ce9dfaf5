"""Making images on the spot, of what this host and its package mirror have.

`build_busybox`: one static program and its names; seconds, no network, the same bytes each time.
`build_debian`: a small Debian with systemd, by mmdebstrap; half a minute.
Both write one unified tarball, ready for import.
"""

import asyncio
import gzip
import io
import platform
import shutil
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from cluster.errors import Invalid, Unsupported
from lxdpy.host import build_files
from lxdpy.host.image_archive import pack
from lxdpy.host.image_metadata import ALIASES
from lxdpy.host.run import CommandFailed, run

BUSYBOX = Path("/bin/busybox")
BOOTSTRAP_FOR = 1800.0  # seconds; 60 MB of packages from a slow mirror
SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
DEBIAN_PACKAGES = (
    "dbus,iproute2,iputils-ping,netbase,procps,systemd,systemd-resolved,systemd-sysv,"
    "udev"  # without it networkd waits for ever for links to be ready where /sys is writable
)
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
PASSED_ON = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::Force")
"""The settings of the host's apt that say how to reach its mirrors."""


async def build_busybox(target: Path) -> None:
    """Raises Unsupported unless there is a static busybox with an init (Debian: busybox-static)."""
    try:
        applets = (await run(BUSYBOX, "--list-full")).stdout.split()
    except CommandFailed:
        applets = []
    if not {"sbin/init", "sbin/udhcpc"} <= set(applets):
        raise Unsupported(
            "Needs a busybox with init and udhcpc (Debian: busybox-static)", program=str(BUSYBOX)
        )
    await asyncio.to_thread(_write_busybox, target, applets)


async def build_debian(target: Path, suite: str = "bookworm", mirror: str | None = None) -> None:
    """`suite` by name or number (`12`); `mirror` None takes whatever the host's own apt uses for it.

    Raises CommandFailed with mmdebstrap's last words. Needs root. If it fails nothing is left.
    """
    suite = SUITES.get(suite.removeprefix("debian/"), suite)
    if not suite.isalnum():
        raise Invalid(f'Not a Debian release: "{suite[:80]}"')
    with TemporaryDirectory(prefix=".build-", dir=target.parent) as scratch:
        root = Path(scratch, "rootfs")
        await run(
            "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet",
            f"--include={DEBIAN_PACKAGES}", *await _apt_options(),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            suite, root, *await _sources(suite, mirror),
            timeout=BOOTSTRAP_FOR,
        )  # fmt: skip
        await run("chroot", root, "systemctl", "enable", "systemd-networkd", "systemd-resolved")
        await asyncio.to_thread(_finish_debian, Path(scratch), suite)
        compression = "zstd -12 -T0" if shutil.which("zstd") else "gzip"
        await pack(Path(scratch), target, compression, names=("metadata.yaml", "rootfs"))


def _metadata(made: float, **properties: str) -> bytes:
    machine = platform.machine()
    debian = next((name for name in ("amd64", "arm64", "armhf", "i386") if ALIASES[name] == machine), machine)
    title = f"{properties['os']} {properties['release']} {debian}"
    serial = time.strftime("%Y%m%d", time.gmtime(made))
    properties |= {"architecture": debian, "description": title, "serial": serial, "type": "tarball"}
    tree = {"architecture": machine, "creation_date": int(made), "properties": properties, "templates": {}}
    return yaml.safe_dump(tree).encode()


def _write_busybox(target: Path, applets: list[str]) -> None:
    made = BUSYBOX.stat().st_mtime  # not now: the same busybox gives the same image
    version = build_files.version_of(BUSYBOX.read_bytes())
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:

        def put(name: str, mode: int, kind: bytes, content: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type, entry.size, entry.linkname = mode, kind, len(content), link
            entry.mtime = int(made)
            tar.addfile(entry, io.BytesIO(content))

        put("metadata.yaml", 0o644, tarfile.REGTYPE, _metadata(made, os="BusyBox", release=version))
        put("rootfs", 0o755, tarfile.DIRTYPE)
        for name, mode in build_files.FOLDERS.items():
            put(f"rootfs/{name}", mode, tarfile.DIRTYPE)
        put("rootfs/bin/busybox", 0o755, tarfile.REGTYPE, BUSYBOX.read_bytes())
        for name, (mode, text) in build_files.BUSYBOX_FILES.items():
            put(f"rootfs/{name}", mode, tarfile.REGTYPE, text.encode())
        for name in sorted(set(applets) - {"bin/busybox", "linuxrc", *build_files.BUSYBOX_FILES}):
            link = "../" * name.count("/") + "bin/busybox"
            put(f"rootfs/{name}", 0o777, tarfile.SYMTYPE, link=link)
    target.write_bytes(gzip.compress(raw.getvalue(), compresslevel=6, mtime=0))


async def _apt_options() -> list[str]:
    lines = (await run("apt-config", "dump")).stdout.splitlines()
    return [f"--aptopt={line}" for line in lines if line.startswith(PASSED_ON) and not line.endswith(' "";')]


async def _sources(suite: str, mirror: str | None) -> list[str]:
    """Lines of sources.list."""
    if mirror:
        return [f"deb {mirror} {suite} main"]
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    words = ("--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    known = (await run("apt-get", "indextargets", *words)).stdout.splitlines()
    ours = [line for line in known if line.split()[2:] in ([name, "main"] for name in wanted)]
    return sorted(set(ours)) or build_files.debian_sources(suite).splitlines()


def _finish_debian(image: Path, suite: str) -> None:
    """Make it an image: nothing in it of this host, nor of this one machine."""
    metadata = _metadata(time.time(), os="Debian", release=suite, variant="minbase")
    (image / "metadata.yaml").write_bytes(metadata)
    root = image / "rootfs"
    for name in ("etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"):
        (root / name).unlink(missing_ok=True)
    for name in ("dev", "etc/apt/sources.list.d", "var/cache/apt", "var/lib/apt/lists", "var/log", "tmp"):
        for path in (root / name).rglob("*"):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    files = {**build_files.DEBIAN_FILES, "etc/apt/sources.list": build_files.debian_sources(suite)}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
