"""Lifecycle events of instances, of what changes no row."""

from typing import TYPE_CHECKING

from lxdpy.resources import announce as any_noun
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def announce(daemon: "Daemon", row: Instance, action: str, *below: str, **context: object) -> None:
    """`action` as in "instance-exec"; `below`: the rest of its URL, for what is of a part of the instance."""
    source = url("instances", row.name, *below, project=row.project)
    any_noun.announce(daemon, action, source, row.project, **context)
