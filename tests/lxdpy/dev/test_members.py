import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from lxdpy.dev.api import INDEX
from lxdpy.dev.members import Cluster, Member


@contextmanager
def answering(member: Member, cluster: str, index: int) -> Iterator[list[int]]:
    """A daemon that has applied so much, and more as soon as it is asked for; the last is where it is."""
    applied = [index]
    answer = json.dumps({"metadata": {"environment": {"certificate_fingerprint": cluster}}}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = int(self.headers.get(INDEX, 0))
            if wanted > applied[-1]:
                applied.append(wanted)
            self.send_response(200)
            self.send_header(INDEX, str(applied[-1]))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            return

        def address_string(self) -> str:
            return "unix"

    member.folder.mkdir()
    with socketserver.ThreadingUnixStreamServer(str(member.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield applied
        finally:
            server.shutdown()
            thread.join()


def test_who_is_asked_next_knows_what_the_one_before_did(tmp_path: Path) -> None:
    cluster = Cluster("t", tmp_path)
    cluster.in_turns()
    first, second, third = cluster.members
    with answering(first, "a", 7), answering(second, "a", 5) as behind, answering(third, "b", 1) as other:
        first.ask("GET", "/1.0")
        second.ask("GET", "/1.0")
        assert behind == [5, 7]
        third.ask("GET", "/1.0")
        assert other == [1], "it is of another cluster, with a log of its own"


def test_who_is_gone_or_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    cluster = Cluster("t", tmp_path)
    cluster.in_turns()
    first, second, _ = cluster.members
    with answering(second, "a", 7) as ahead:
        with answering(first, "a", 5):
            first.ask("GET", "/1.0")
            second.ask("GET", "/1.0")
            first.ask("GET", "/1.0")
        second.ask("GET", "/1.0")
        assert ahead == [7]


def test_members_are_asked_as_they_are_where_that_is_what_counts(tmp_path: Path) -> None:
    first, second, _ = Cluster("t", tmp_path).members
    with answering(first, "a", 7), answering(second, "a", 5) as behind:
        first.ask("GET", "/1.0")
        second.ask("GET", "/1.0")
        assert behind == [5]
