"""Words of tests about instances, and the Debian image that they start."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from integration.harness import caught_up, eventually, lxc, lxc_try
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Member
from lxdpy.host import build, build_files
from lxdpy.host.build import build_busybox, build_debian

CACHE = Path("/var/cache/lxdpy-test")
BOOT = 30.0  # seconds within which systemd is up on a busy host; 1.5 on an idle one
LEASE = 15.0  # seconds from then to an address; under 1 on an idle host


def debian() -> Path:
    """A Debian image with systemd."""
    return kept("debian-12", lambda draft: build_debian(draft, "12"))


def busybox(member: Member) -> None:
    """Give the cluster the image `busybox`."""
    lxc(member, "image", "import", str(kept("busybox", build_busybox)), "--alias", "busybox")


def kept(name: str, made: Callable[[Path], Coroutine[None, None, None]]) -> Path:
    """An image that is kept from run to run, as making it takes time, or packages from the network.

    What makes it is in its name: another recipe is another file.
    """
    recipe = b"".join(Path(str(module.__file__)).read_bytes() for module in (build, build_files))
    image = CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}.tar"
    if not image.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = image.with_suffix(f".{os.getpid()}")  # the tests of another file may want it as well
        asyncio.run(made(draft))
        draft.rename(image)
    return image


def launch(other: Member, name: str, *config: str) -> None:
    """On n1, by way of another; `config`: pairs such as "limits.cpu=1"."""
    words = [word for pair in config for word in ("-c", pair)]
    lxc(other, "launch", "busybox", name, "--target", "n1", *words)


def sh(member: Member, name: str, script: str, *, timeout: float = 60) -> str:
    """What a shell script says in the instance, errors included."""
    done = lxc_try(member, "exec", name, "--", "sh", "-c", f"exec 2>&1; {script}", timeout=timeout)
    return done.out + done.err


def instance(member: Member, name: str) -> dict[str, Any]:
    row: dict[str, Any] = member.ask("GET", f"/1.0/instances/{name}")
    return row


def state(member: Member, name: str) -> dict[str, Any]:
    found: dict[str, Any] = member.ask("GET", f"/1.0/instances/{name}/state")
    return found


def is_up(member: Member, name: str) -> bool:
    """Whether systemd has started all it should; the failed units are an assertion's message."""
    said = sh(member, name, "systemctl is-system-running").strip()
    assert said != "degraded", sh(member, name, "systemctl --failed --plain --no-legend")
    return said == "running"


def address(member: Member, name: str) -> str:
    """The IPv4 address of eth0; "" while there is none."""
    network = state(member, name)["network"] or {}
    found = network.get("eth0", {}).get("addresses", [])
    return next((a["address"] for a in found if a["family"] == "inet" and a["scope"] == "global"), "")


def pool_of(member: Member, pool: str) -> Path:
    """The pool's folder as the daemon sees it: what it mounts is in a namespace of its own."""
    return Path(f"/proc/{member.pid()}/root{member.folder}/storage-pools/{pool}")


def names_in(folder: Path) -> list[str]:
    """Also of what is unfinished."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def failure(member: Member, *words: str) -> str:
    """What the client says of a command that fails."""
    done = lxc_try(member, *words)
    assert done.status == 1, done.out
    return done.err.strip().removeprefix("Error: ")


def crash(member: Member, point: str, *words: str, at: Member | None = None) -> None:
    """The member's daemon dies at that point of a command, given to it or to another; then it is back.

    The client must not wait for ever.
    """
    member.stop()
    member.start(LXDPY_FAILPOINTS=f"{point}=crash")
    eventually(lambda: online(at or member, member), within=15)
    with ThreadPoolExecutor() as client:
        done = client.submit(lxc_try, at or member, *words, timeout=60)
        eventually(lambda: member.pid() is None, within=15)
        member.start()
        done.result()


def restarted(member: Member, name: str, *, unless: bool) -> None:
    """So that what was plugged in is seen to be as what is there from the start."""
    if not unless:
        lxc(member, "restart", "--force", name)


def online(member: Member, other: Member) -> bool:
    """Whether the member knows that the other is back, and all others are there."""
    rows = member.ask("GET", "/1.0/cluster/members?recursion=1")
    return all(row["status"] == "Online" for row in rows) and other.pid() is not None


def processes_with(fits: Callable[[bytes], bool]) -> list[int]:
    """Those that have such a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(map(fits, words)):
                found.append(int(entry.name))
    return found


def clear(member: Member) -> None:
    """Delete all instances."""
    names = [row["name"] for row in member.ask("GET", "/1.0/instances?recursion=1")]
    if names:
        lxc(member, "delete", "--force", *names)


def emptied(member: Member) -> None:
    """Delete all instances, and have nobody wait for GPUs. To be asked again: some may be served."""
    queue = caught_up(member).ask("GET", "/1.0/gpu-queue?recursion=1")
    for row in queue:
        with contextlib.suppress(Refused):  # it does not wait any more
            member.ask("DELETE", f"/1.0/operations/{row['id']}")
    clear(member)
    assert not queue, "some waited, and may have been served meanwhile"


if __name__ == "__main__":
    print(debian())
