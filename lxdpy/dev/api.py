"""The shortest way to a daemon's API: its unix socket. For whoever must not depend on `lxdpy.client`."""

import http.client
import json
import socket
from email.message import Message
from pathlib import Path
from typing import Any

TIMEOUT = 60  # seconds for one answer
INDEX = "X-Lxdpy-Index"


class Refused(Exception):
    """The daemon answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status


class Connection(http.client.HTTPConnection):
    """To the daemon that listens on the socket `path`; `timeout` seconds for each step."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("lxdpy", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, url: str, body: object = None, *, timeout: float = TIMEOUT) -> Any:
    """The answer's metadata; a background operation is waited for, and its own metadata given.

    Not so one of class token, which ends by being used: its metadata is the token.

    Raises Refused, or OSError if nobody listens.
    """
    answer = _send(path, method, url, body, timeout)
    if answer.get("type") != "async":
        return answer["metadata"]
    if answer["metadata"]["class"] == "token":
        return answer["metadata"]["metadata"]
    url, mark, query = answer["operation"].partition("?")  # the project, if another member runs it
    operation = _send(path, "GET", f"{url}/wait{mark}{query}", None, timeout)["metadata"]
    if operation.get("err"):
        raise Refused(operation.get("status_code", 400), operation["err"])
    return operation.get("metadata")


def applied(path: Path, index: int = 0, *, timeout: float = 6) -> tuple[str, int]:
    """Of which cluster the daemon is (a fingerprint), and which index it has applied: `index` or more.

    Raises Refused if it is not there within 5 s, or OSError if nobody listens.
    """
    answer, headers = _talk(path, "GET", "/1.0", None, timeout, {INDEX: str(index)})
    return answer["metadata"]["environment"]["certificate_fingerprint"], int(headers[INDEX])


def _send(path: Path, method: str, url: str, body: object, timeout: float) -> dict[str, Any]:
    return _talk(path, method, url, body, timeout, {})[0]


def _talk(
    path: Path, method: str, url: str, body: object, timeout: float, headers: dict[str, str]
) -> tuple[dict[str, Any], Message]:
    """The answer, and its headers."""
    connection = Connection(path, timeout)
    try:
        connection.request(method, url, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if not isinstance(answer, dict) or answer.get("type") == "error" or response.status >= 400:
        raise Refused(response.status, str(answer.get("error", "no error text")))
    return answer, response.headers
