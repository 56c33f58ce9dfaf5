import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.daemon.hub import Hub
from lxdpy.daemon.logs import blotted, set_up, to_hub
from lxdpy.rest.trace import INSTANCE, REQUEST
from tests.lxdpy.fakes import LocalStore

CANARY = "c4n4ry-5ecret"
log = logging.getLogger("lxdpy.test")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        f"GET /1.0/operations/x/websocket?secret={CANARY}",
        f'{{"password": "{CANARY}", "name": "a"}}',
        f"{{'core.trust_password': '{CANARY}'}}",
        f"token={CANARY}&x=1",
        f"Secret: {CANARY}",
        f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
    ],
)
def test_secrets_are_blotted_out(text: str) -> None:
    assert CANARY not in blotted(text)
    assert blotted(text) != text


@pytest.mark.parametrize("text", ["Created token.create for n4", "profile default: 3 secrets", "", "a=b"])
def test_other_text_stays(text: str) -> None:
    assert blotted(text) == text


def test_a_log_file_names_request_and_instance(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "lxdpyd.log"
    set_up(file=file)
    REQUEST.set("r1")
    INSTANCE.set("default/c1")
    log.info("started; password=%s", CANARY)
    log.debug("too much")
    REQUEST.set("")
    INSTANCE.set("")
    text = file.read_text()
    assert text.endswith("lxdpy.test: started; password=*** request=r1 instance=default/c1\n")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, 1), ({"verbose": True}, 2), ({"debug": True}, 3), ({"verbose": True, "debug": True}, 3)],
)
def test_flags_choose_what_is_said(options: dict[str, Any], lines: int, capsys: Any) -> None:
    set_up(**options)
    log.debug("debug")
    log.info("info")
    log.warning("warning")
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_lines_are_events_from_any_thread_and_debug_stays_at_home() -> None:
    async def main() -> None:
        store: Any = LocalStore()
        store.link("f" * 12, True)
        hub = Hub(store)
        handler = to_hub(hub)
        logging.getLogger().setLevel(logging.DEBUG)

        def speak() -> None:
            log.debug("quiet")
            log.warning("secret=%s", CANARY)

        thread = threading.Thread(target=speak)
        thread.start()
        thread.join()
        await asyncio.sleep(0.01)
        logging.getLogger().removeHandler(handler)
        events = [msgspec.json.decode(cast["event"]) for cast in store.sent]
        ours = [event for event in events if event["metadata"]["context"]["logger"] == log.name]
        assert [(event["type"], event["metadata"]["level"]) for event in ours] == [("logging", "warning")]
        assert ours[0]["metadata"]["message"] == "secret=***"

    asyncio.run(main())
