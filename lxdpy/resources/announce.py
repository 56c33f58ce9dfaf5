"""Lifecycle events of what changes no row, sent where those of rows are made from the log."""

from typing import TYPE_CHECKING

from cluster.state.command import CALLER

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def announce(daemon: "Daemon", action: str, source: str, project: str = "", **context: object) -> None:
    """`action` as in "image-retrieved", done by the present caller to what has the URL `source`."""
    event: dict[str, object] = {"action": action, "source": source, "requestor": CALLER.get() or {}}
    if context:
        event["context"] = context
    daemon.hub.publish("lifecycle", event, project=project)
