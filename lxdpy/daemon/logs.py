"""Logging set-up. Every line names the request, operation and instance it is about; secrets are blotted
out.
"""

import logging
import re
import sys
from pathlib import Path

from lxdpy.daemon.hub import Hub
from lxdpy.rest.trace import INSTANCE, OPERATION, REQUEST

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(about)s"
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}
# Their debug lines say nothing about this program.
NOISY = ("pyroute2", "asyncio", "aiohttp.access", "aiohttp.server")

# The last line of defence: code is not to log secrets in the first place.
_SECRET = re.compile(
    r"""((?:secret|password|trust_password|private_key|token)["']?\s*[=:]\s*["']?)([^\s"'&,;)}\]]+)""",
    re.IGNORECASE,
)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


def set_up(*, file: Path | None = None, verbose: bool = False, debug: bool = False) -> None:
    """Warnings to stderr, more if asked for; all of it to `file` as well. May be called again."""
    level = logging.DEBUG if debug else logging.INFO if verbose or file else logging.WARNING
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(logging.FileHandler(file))
    if not (verbose or debug):
        handlers[0].setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(Formatter(FORMAT))
        handler.addFilter(about)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def to_hub(hub: Hub) -> logging.Handler:
    """Send log lines to who listens to `logging` events, from now on; remove the handler from the root to
    end.
    """
    handler = HubHandler(hub)
    handler.addFilter(about)
    logging.getLogger().addHandler(handler)
    return handler


def context_of() -> dict[str, str]:
    """What the running task is about."""
    pairs = (("request", REQUEST.get()), ("operation", OPERATION.get()), ("instance", INSTANCE.get()))
    return {name: value for name, value in pairs if value}


def about(record: logging.LogRecord) -> bool:
    """Note the context where the line is written: a handler may run in another task."""
    if not hasattr(record, "context"):
        context = context_of()
        record.context = context
        record.about = "".join(f" {name}={value}" for name, value in context.items())
    return True


def blotted(text: str) -> str:
    return _KEY.sub("-----PRIVATE KEY-----", _SECRET.sub(r"\1***", text))


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return blotted(super().format(record))


class HubHandler(logging.Handler):
    """Lines as events, debug ones to this member's listeners only. Any thread."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        cast = record.levelno >= logging.INFO
        if not self._hub.wanted(cast=cast):
            return
        context: dict[str, str] = getattr(record, "context", {})
        metadata = {
            "message": blotted(record.getMessage()),
            "level": LEVELS.get(record.levelname, "info"),
            "context": {"logger": record.name, **context},
        }
        self._hub.publish_soon("logging", metadata, cast=cast)
