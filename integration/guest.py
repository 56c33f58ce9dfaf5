"""A client inside: a process that enters a container as one of its users, and speaks to `/dev/lxd/sock`."""

import json
import subprocess
from typing import Any, NamedTuple

from integration.containers import python
from integration.instances import state
from lxdpy.dev.members import Member

ENTER = """
import http.client, os, socket, time
from lxdpy.host import mounts

"x".encode("iso-8859-1")  # what is looked up late would be looked for inside
pid, uid = int(sys.argv[1]), int(sys.argv[2])
mounts.enter(os.pidfd_open(pid))
os.setresuid(uid, uid, uid)

def connected():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("/dev/lxd/sock")
    return sock
"""
ASK = f"""{ENTER}
client = http.client.HTTPConnection("lxd", timeout=30)
client.sock = connected()
client.request(sys.argv[3], sys.argv[4], sys.argv[5].encode() or None)
reply = client.getresponse()
head = b"%d %s\\n" % (reply.status, reply.getheader("Content-Type", "-").encode())
sys.stdout.buffer.write(head + reply.read())
"""
LISTEN = f"""{ENTER}
sock = connected()
sock.sendall(sys.argv[3].encode())
while data := sock.recv(65536):
    os.write(1, data)
"""
WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Reply(NamedTuple):
    status: int
    type: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(member: Member, name: str, path: str, method: str = "GET", body: str = "", *, uid: int = 0) -> Reply:
    """What the guest API answers to a process of that user in the container."""
    pid = state(member, name)["pid"]
    done = subprocess.run(
        python(ASK, pid, uid, method, path, body), capture_output=True, check=False, timeout=60, cwd="/"
    )
    assert not done.returncode, done.stderr.decode()
    head, _, text = done.stdout.partition(b"\n")
    status, _, kind = head.decode().partition(" ")
    return Reply(int(status), kind, text.decode(errors="replace"))


def listen(member: Member, name: str, query: str = "", headers: str = "") -> subprocess.Popen[bytes]:
    """A process that prints the events it is told, raw."""
    pid = state(member, name)["pid"]
    request = f"GET /1.0/events{query} HTTP/1.1\r\nHost: lxd\r\n{headers}\r\n"
    return subprocess.Popen(python(LISTEN, pid, 0, request), stdout=subprocess.PIPE, cwd="/")
