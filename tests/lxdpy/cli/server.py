"""A small server with LXD's envelopes on a unix socket, in a thread of its own: the CLI has its loop."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from lxdpy.cli.main import cli

OPERATION = "/1.0/operations/0d2cf4ac-5a43-41d1-a3b5-aaaaaaaaaaaa"


class Refusal(NamedTuple):
    status: int
    message: str


class Begun(NamedTuple):
    """An operation; `ends` is the metadata it ends with, or the text of its failure."""

    ends: Any
    metadata: Any = None


class Asked(NamedTuple):
    method: str
    path: str
    body: Any


class Server:
    """Answers what it was told to by "METHOD /path" (no query), else 404 to GET and success to others."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[Asked] = []
        self.files: list[bytes] = []
        self._ends: Any = {}

    def changes(self) -> list[Asked]:
        return [one for one in self.asked if one.method != "GET"]

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if request.content_type == "application/octet-stream" and body:
            self.files.append(body)
        parsed = json.loads(body) if body and request.content_type == "application/json" else None
        self.asked.append(Asked(request.method, request.raw_path, parsed))
        path = request.raw_path.partition("?")[0]
        if path == f"{OPERATION}/wait":
            return self._ended()
        default = Refusal(404, "not found") if request.method == "GET" else None
        answer = self.answers.get(f"{request.method} {path}", default)
        return self._reply(answer(parsed) if callable(answer) else answer)

    def _reply(self, answer: Any) -> web.Response:
        if isinstance(answer, Refusal):
            body = {"type": "error", "error": answer.message, "error_code": answer.status}
            return web.json_response(body, status=answer.status)
        if isinstance(answer, Begun):
            self._ends = answer.ends
            shown = {"id": OPERATION[-36:], "status_code": 103, "metadata": answer.metadata}
            return web.json_response({"type": "async", "operation": OPERATION, "metadata": shown}, status=202)
        return web.json_response({"type": "sync", "status_code": 200, "metadata": answer})

    def _ended(self) -> web.Response:
        failed = isinstance(self._ends, str)
        shown = {"id": "1", "status_code": 400, "err": self._ends} if failed else {"status_code": 200}
        return self._reply(shown | {"metadata": None if failed else self._ends})


async def turns(number: int = 50) -> None:
    """Of the loop: each looks at all sockets. Waiting for a time may be one turn only."""
    for _ in range(number):
        await asyncio.sleep(0)


@contextmanager
def listening(path: Path, server: Server) -> Iterator[Callable[[], None]]:
    """Gives what ends it early, as a daemon that stops."""
    loop = asyncio.new_event_loop()
    ended = threading.Event()
    runners: list[web.ServerRunner] = []

    async def begin() -> None:
        runner = web.ServerRunner(web.Server(server.handle, access_log=None))
        runners.append(runner)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()

    async def end() -> None:
        if not ended.is_set():
            ended.set()
            for runner in runners:
                await runner.cleanup()

    async def drain() -> None:
        """What still runs when the test is over ends, and closes what it holds."""
        await turns()  # a connection made last is taken in
        await end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await turns()  # the loop closes sockets some turns later

    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(end(), loop)

    try:
        asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
        yield stop
    finally:
        asyncio.run_coroutine_threadsafe(drain(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class Cli:
    """The command line against a server of its own."""

    def __init__(self, socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = Server()
        self.socket = socket
        monkeypatch.setenv("LXD_SOCKET", str(socket))

    def run(self, *words: str, stdin: str = "") -> Result:
        with listening(self.socket, self.server):
            return CliRunner().invoke(cli, words, input=stdin)

    def ok(self, *words: str, stdin: str = "") -> str:
        """What it printed on stdout."""
        result = self.run(*words, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def fails(self, *words: str, stdin: str = "", status: int = 1) -> str:
        """The last line on stderr."""
        result = self.run(*words, stdin=stdin)
        assert result.exit_code == status, result.output
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        return result.stderr.strip().splitlines()[-1]
