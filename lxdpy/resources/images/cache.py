"""PURE: images that are here of what was asked of other servers, and those that nobody has used for long."""

import msgspec

from cluster.state.txn import State
from lxdpy.resources.images.commands import ExpireImage
from lxdpy.resources.images.model import IMAGES, Asked, Image, Remote
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.server.model import setting

DAY = 86400.0  # seconds
DEFAULTS = {  # of the server's settings that a project may have for itself
    "images.auto_update_cached": "true",
    "images.auto_update_interval": "6",
    "images.remote_cache_expiry": "10",
    "images.default_architecture": "",
}


def chosen(state: State, project: str, key: str) -> str:
    """The project's setting, or else the server's."""
    row = state.find(PROJECTS, project)
    return (row.config.get(key) if row else "") or setting(state, key, DEFAULTS[key])


def kept(state: State, project: str, asked: Asked, architecture: str) -> Image | None:
    """What is here of it and need not be asked for: the very image, or one that is kept up to date.

    `project` has the images; an `architecture` of "" means any.
    """
    named = Remote(asked.server, asked.name, asked.certificate, asked.protocol)
    if chosen(state, project, "images.auto_update_interval") != "0":
        fit = [
            row
            for row in state.rows(IMAGES).values()
            if row.project == project
            and row.auto_update
            and row.remote == named
            and architecture in ("", row.architecture)
        ]
        if fit:
            return max(fit, key=lambda row: (row.created_at, row.fingerprint))
    exact = state.find(IMAGES, f"{project}/{asked.fingerprint}") if not asked.alias else None
    return exact if exact is not None and architecture in ("", exact.architecture) else None


def cached(state: State, project: str, now: float) -> Image:
    """As much of the row as is known before the server was asked. `project` has the images."""
    follows = chosen(state, project, "images.auto_update_cached") in ("true", "1", "yes", "on")
    return Image(project, "", auto_update=follows, last_used_at=now, cached=True)


def expired(state: State, now: float) -> list[ExpireImage]:
    """What is to be proposed for those that were got by themselves and not used for long."""
    found = []
    for row in state.rows(IMAGES).values():
        days = int(chosen(state, row.project, "images.remote_cache_expiry")) if row.cached else 0
        if days and row.last_used_at < now - days * DAY:
            found.append(ExpireImage(row.key, now - days * DAY))
    return found


def asked_again(row: Image) -> Asked | None:
    """How to ask for a newer one; None if there is no name to ask by."""
    remote = row.remote
    if remote is None or not remote.alias:
        return None
    return msgspec.convert(msgspec.to_builtins(remote), Asked)
