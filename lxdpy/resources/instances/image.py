"""The image of an instance that is to be had of another server: its owner gets it, and tells which it is."""

import time
from typing import TYPE_CHECKING

from cluster.errors import Invalid, NotFound
from lxdpy.resources.images import remote
from lxdpy.resources.images.cache import cached
from lxdpy.resources.images.model import Asked, Image
from lxdpy.resources.instances.commands import TellImage
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.projects.model import home

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon
    from lxdpy.resources.operations.operation import Operation

TRIES = 3  # of getting it, when it is replaced by a newer one just then


async def with_image(daemon: "Daemon", row: Instance, operation: "Operation") -> Instance:
    """The row with an image that the cluster knows. While it is got, the operation may be cancelled.

    Raises NotFound, Unavailable; Invalid if it is for another architecture.
    """
    asked, left = row.source.remote, TRIES
    while asked is not None:
        image, left = await _got(daemon, row, asked, operation), left - 1
        operation.may_cancel = False
        try:
            state = await daemon.store.propose(TellImage(row.key, daemon.member_id, image.key))
        except NotFound:
            if not left:
                raise
        else:
            row = state.get(INSTANCES, row.key)
            break
    return row


async def _got(daemon: "Daemon", row: Instance, asked: Asked, operation: "Operation") -> Image:
    project = home(daemon.state, row.project, "images")
    draft = cached(daemon.state, project, time.time())
    image = await remote.get(daemon, asked, draft, operation, row.architecture)
    if image.architecture not in ("", row.architecture):
        text = f'Image "{asked.name[:80]}" is for {image.architecture}, not for {row.architecture}'
        raise Invalid(text, key="source")
    return image
