"""PURE: whether a running instance has said that it has come up; by the guest API."""

from lxdpy.resources.instances.model import Instance

READY = "volatile.last_state.ready"  # "true", or not there; gone when it stops or reboots


def is_ready(row: Instance) -> bool:
    return row.config.get(READY) == "true"


def status_of(row: Instance) -> str:
    """As clients see it."""
    return "Ready" if row.status == "Running" and is_ready(row) else row.status
