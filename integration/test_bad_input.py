"""Strangers at the cluster's port, and files that cannot be believed: a clear word, and nobody let in."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.tls.certificates import make
from integration.harness import eventually, lxc_json, running
from lxdpy.dev.members import Cluster, Member, NotReady

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
DIGEST = "/internal/1.0/cluster/digest"
STRANGERS = 3  # processes
FLOOD = 6.0  # seconds
ENOUGH = 60  # connections of each, however long they take

# What a stranger does: silence, noise, TLS without a word, Raft's greeting with a certificate nobody knows,
# and a frame that says it has 2 GiB. As many connections as the descriptors of a process allow.
STRANGER = """
import os, pickle, random, socket, ssl, struct, sys, time
host, port, folder, seconds, enough = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["raft/1"])
context.load_cert_chain(folder + "/stranger.crt", folder + "/stranger.key")
said = [struct.pack("<I", 2**31), struct.pack("<I", 40) + pickle.dumps(os.getcwd) * 3, os.urandom(5000)]
kept, let_in, end = [], 0, time.monotonic() + float(seconds)
while time.monotonic() < end or len(kept) < int(enough):
    try:
        plain = socket.create_connection((host, port), 3)
        kept.append(plain)
        choice = random.randrange(4)
        if choice == 1:
            plain.sendall(os.urandom(random.randrange(1, 9000)))
        elif choice == 2:
            plain.sendall(b"\\x16\\x03\\x01\\x40\\x00\\x01\\x00")
        elif choice == 3:
            plain.settimeout(1)
            with context.wrap_socket(plain) as secured:
                secured.sendall(random.choice(said))
                let_in += bool(secured.recv(100))
    except OSError:
        pass
    if len(kept) > 400:
        for one in kept[:200]:
            one.close()
        del kept[:200]
print(len(kept), let_in)
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    with running(members=2, gpus=0) as made:
        certificate, key = make("stranger")
        (made.state / "stranger.crt").write_text(certificate)
        (made.state / "stranger.key").write_text(key)
        yield made


def statuses(member: Member) -> set[str]:
    return {row["status"] for row in lxc_json(member, "cluster", "list")}


def descriptors(member: Member) -> int:
    return len(os.listdir(f"/proc/{member.pid()}/fd"))


def test_strangers_at_the_port_are_neither_let_in_nor_in_the_way(pair: Cluster) -> None:
    first, second = pair.members
    before = {member.name: descriptors(member) for member in pair.members}
    lines = {member.name: member.tail(10_000).count("Traceback") for member in pair.members}
    words, more = [sys.executable, "-c", STRANGER], [str(pair.state), str(FLOOD), str(ENOUGH)]
    strangers = [
        subprocess.Popen(
            pair.net.enter(first.name, *words, *member.address.split(":"), *more),
            stdout=subprocess.PIPE, text=True,
        )
        for member in pair.members for _ in range(STRANGERS)
    ]  # fmt: skip
    written, end = 0, time.monotonic() + FLOOD
    while time.monotonic() < end:
        first.ask("POST", "/1.0/profiles", {"name": f"p{written}"}, timeout=30)
        written += 1
    for stranger in strangers:
        kept, let_in = map(int, stranger.communicate(timeout=120)[0].split())
        assert (kept >= ENOUGH, let_in) == (True, 0)
    eventually(lambda: len(second.ask("GET", "/1.0/profiles")) == written + 1, within=30)
    eventually(lambda: all(descriptors(m) <= before[m.name] + 10 for m in pair.members), within=30)
    eventually(lambda: statuses(second) == {"Online"}, within=30)
    eventually(lambda: first.ask("GET", DIGEST) == second.ask("GET", DIGEST), within=30)
    assert {member.name: member.tail(10_000).count("Traceback") for member in pair.members} == lines


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("cluster/identity.json", b"{", r"identity\.json: "),
        ("cluster/raft/snapshot", b"RSNP0001", "snapshot: not a snapshot"),
        ("server.key", b"no key", r"Bad key pair .*server\.crt"),
        ("daemon.lock/", b"", "Is a directory"),
    ],
)
def test_files_that_cannot_be_believed_are_named_and_left_alone(
    pair: Cluster, file: str, content: bytes, said: str
) -> None:
    member = pair.members[1]
    member.stop()
    path = member.folder / file
    aside = path.with_name("aside")
    if path.exists():
        path.rename(aside)
    spoil(path, content, folder=file.endswith("/"))
    with pytest.raises(NotReady, match=f"Error: .*{said}") as refused:
        member.start()
    assert "Traceback" not in str(refused.value).split("Error:")[-1]
    assert path.is_dir() or path.read_bytes() == content
    path.rmdir() if path.is_dir() else path.unlink()
    if aside.exists():
        aside.rename(path)
    member.start()
    assert member.ask("GET", "/1.0/cluster")["enabled"]


def spoil(path: Path, content: bytes, *, folder: bool) -> None:
    if folder:
        path.mkdir()
    else:
        path.write_bytes(content)
        path.chmod(0o600)


def test_another_cluster_certificate_on_disk_is_corrected_by_the_log(pair: Cluster) -> None:
    """As from an old copy of the files: it is what all have agreed on that counts."""
    member = pair.members[1]
    right = member.ask("GET", "/1.0")["environment"]["certificate_fingerprint"]
    member.stop()
    certificate, key = make("old")
    path = member.folder / "cluster/identity.json"
    old = {"certificate": certificate, "certificate_key": key}
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    member.start()
    eventually(
        lambda: member.ask("GET", "/1.0")["environment"]["certificate_fingerprint"] == right, within=30
    )
