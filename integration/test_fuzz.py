"""Whatever is sent to whatever route: an answer, soon, that is no failure of ours.

The requests are made by schemathesis from the server's own description of itself, the same ones each time.
"""

import contextlib
import http.client
import json
import random
import socket
import warnings
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote, urlencode

import hypothesis
import pytest

from integration.harness import lxc, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own, at its import
    import schemathesis
    from schemathesis import GenerationMode

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

SEED = 5
EXAMPLES = 3  # of each route, that fit its description; and as many that do not
ANSWERS_WITHIN = 20.0  # seconds; most take some milliseconds
# What would make it another server, or another one's client, from one moment to the next.
LEFT_OUT = (
    ("PUT", "/1.0/cluster"),
    ("PUT", "/1.0/cluster/certificate"),
)
TWINS = "/1.0/containers"  # the same routes as those of instances
MOSTLY = 0.85
KEYS = (
    "limits.cpu", "limits.memory", "limits.gpu", "gpu.match", "limits.cpu.allowance", "boot.autostart",
    "snapshots.schedule", "snapshots.pattern", "snapshots.expiry", "raw.lxc", "raw.idmap", "user.x",
    "security.idmap.base", "volatile.x", "ipv4.address", "ipv4.dhcp.ranges", "size", "source", "nonsense",
    "features.images", "limits.instances", "restricted", "scheduler.instance", "cluster.max_voters",
    "environment.\u2603", "linux.sysctl.x", "limits.kernel.nofile", "cluster.evacuate", "",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "true", "none", "1GiB", "99999999999999999999", "0-3", "50%", "10ms/100ms", "@daily",
    "* * * * *", "{{ x", "/", "/etc/passwd", "a\x00b", "\n", "vendor=nvidia", "memory>=1GiB model~(",
    "default", "10.0.0.1/24", "fd42::1/64", "both 0 0", "\u2603", "\ud83d\ude00" * 50, "x" * 5000,
)  # fmt: skip
DEVICES = (
    "disk",
    "nic",
    "gpu",
    "none",
    "proxy",
    "unix-char",
    "unix-block",
    "usb",
    "unix-hotplug",
    "infiniband",
)
OPTIONS = (
    "path", "source", "pool", "size", "network", "nictype", "parent", "name", "pci", "id", "count", "match",
    "listen", "connect", "bind", "major", "minor", "uid", "mode", "vendorid", "required", "limits.read",
    "shift",
)  # fmt: skip
THERE = {
    "/1.0/instances": ("name", "fuzzed"),
    "/1.0/profiles": ("name", "default"),
    "/1.0/projects": ("name", "default"),
    "/1.0/networks": ("name", "lxdbr0"),
    "/1.0/storage-pools": ("pool", "default"),
    "/1.0/cluster/members": ("name", "n1"),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[Cluster]:
    with running(members=1, gpus=2) as made:
        first = made.members[0]
        busybox(first)
        lxc(first, "init", "busybox", "fuzzed")
        yield made


def test_no_request_is_answered_by_a_failure_of_ours(alone: Cluster) -> None:
    member = alone.members[0]
    schema = schemathesis.openapi.from_dict(described(member))
    chance = random.Random(SEED)
    wrong: list[str] = []
    sent = 0
    for result in schema.get_all_operations():
        operation: Any = cast(Any, result).ok()
        if operation.path.startswith(TWINS) or (operation.method.upper(), operation.path) in LEFT_OUT:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for case in cases_of(operation, mode):
                status, said = answer(member, case, chance)
                sent += 1
                if status >= 500 and status not in (501, 503):
                    wrong.append(f"{case.method} {case.formatted_path}: {status} {said}")
    assert not wrong, "\n".join(sorted(set(wrong)))
    assert sent > 500
    assert "Traceback" not in member.tail(10_000)
    assert lxc(member, "list")


def described(member: Member) -> dict[str, Any]:
    status, body = ask(member, "GET", "/1.0/openapi.json")
    assert status == 200
    document: dict[str, Any] = json.loads(body)
    return document


def cases_of(operation: Any, mode: GenerationMode) -> list[Any]:
    """The first that are made from the seed."""
    found: list[Any] = []

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        found.append(case)

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing that does not fit can be made
        collect()
    return found


def answer(member: Member, case: Any, chance: random.Random) -> tuple[int, str]:
    """Mostly about something that is there, with keys that there are."""
    names = dict(case.path_parameters or {})
    for prefix, (name, known) in THERE.items():
        below = case.operation.path.removeprefix(f"{prefix}/{{{name}}}")
        gone = case.method == "DELETE" and not below
        if below != case.operation.path and not gone and chance.random() < MOSTLY:
            names[name] = known
    path = case.operation.path
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe="") or "%20")
    query = {name: value for name, value in dict(case.query or {}).items() if value is not None}
    body = case.body if isinstance(case.body, bytes) else None
    if case.media_type == "application/json":
        body = json.dumps(with_keys(case.body, chance), default=str).encode()
    headers = {"Content-Type": case.media_type} if body is not None else {}
    return ask(member, case.method, f"{path}?{urlencode(query, doseq=True)}", body, headers)


def with_keys(body: Any, chance: random.Random) -> Any:
    """The body, with a key and a device of those that a description by types knows nothing of."""
    if not isinstance(body, dict) or chance.random() > MOSTLY:
        return body
    found = dict(body)
    if "config" in found:
        found["config"] = {chance.choice(KEYS): chance.choice(VALUES)}
    if "devices" in found:
        device = {"type": chance.choice(DEVICES), chance.choice(OPTIONS): chance.choice(VALUES)}
        found["devices"] = {"d": device | {chance.choice(OPTIONS): chance.choice(VALUES)}}
    return found


def ask(
    member: Member, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("lxd")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ANSWERS_WITHIN)
    connection.sock.connect(str(member.socket))
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except TimeoutError:
        return 599, "no answer"
    finally:
        connection.close()
