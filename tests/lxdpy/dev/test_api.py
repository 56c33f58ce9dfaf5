import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from lxdpy.dev.api import Refused, ask


@contextmanager
def daemon(socket: Path, answers: dict[str, tuple[int, Any]]) -> Iterator[list[str]]:
    """Something that answers by "METHOD url", and remembers what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(f"{self.command} {self.path} {body}".strip())
            status, answer = answers[f"{self.command} {self.path}"]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            return

        def address_string(self) -> str:
            return "unix"

    with socketserver.UnixStreamServer(str(socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_is_its_metadata(tmp_path: Path) -> None:
    with daemon(
        tmp_path / "s", {"GET /1.0": (200, {"type": "sync", "metadata": {"auth": "trusted"}})}
    ) as asked:
        assert ask(tmp_path / "s", "GET", "/1.0") == {"auth": "trusted"}
    assert asked == ["GET /1.0"]


def test_an_operation_is_waited_for(tmp_path: Path) -> None:
    answers = {
        "POST /1.0/instances": (202, {"type": "async", "operation": "/1.0/operations/7",
                                      "metadata": {"class": "task"}}),
        "GET /1.0/operations/7/wait": (200, {"type": "sync", "metadata": {"err": "", "metadata": {"a": 1}}}),
    }  # fmt: skip
    with daemon(tmp_path / "s", answers) as asked:
        assert ask(tmp_path / "s", "POST", "/1.0/instances", {"name": "c1"}) == {"a": 1}
    assert asked[0] == 'POST /1.0/instances {"name": "c1"}'


def test_a_failed_operation_is_a_refusal(tmp_path: Path) -> None:
    answers = {
        "PUT /x": (202, {"type": "async", "operation": "/1.0/operations/7", "metadata": {"class": "task"}}),
        "GET /1.0/operations/7/wait": (200, {"metadata": {"err": "No GPU", "status_code": 400}}),
    }
    with daemon(tmp_path / "s", answers), pytest.raises(Refused, match="No GPU"):
        ask(tmp_path / "s", "PUT", "/x")


def test_a_token_is_not_waited_for(tmp_path: Path) -> None:
    metadata = {"class": "token", "metadata": {"secret": "s"}}
    answers = {"POST /t": (202, {"type": "async", "operation": "/1.0/operations/7", "metadata": metadata})}
    with daemon(tmp_path / "s", answers):
        assert ask(tmp_path / "s", "POST", "/t") == {"secret": "s"}


def test_an_error_carries_its_status(tmp_path: Path) -> None:
    answers = {"GET /1.0/instances/c9": (404, {"type": "error", "error": "Instance not found"})}
    with daemon(tmp_path / "s", answers), pytest.raises(Refused, match="Instance not found") as refusal:
        ask(tmp_path / "s", "GET", "/1.0/instances/c9")
    assert refusal.value.status == 404


def test_nobody_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ask(tmp_path / "s", "GET", "/1.0")
