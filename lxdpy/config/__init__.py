"""Every config key of every entity, checked and documented in one way.

An entity's keys are here, one table a file; a driver's keys are on the driver and join its entity's by `|`.
All of it is pure: a key's value is text, its table says what the text must be.
"""

from lxdpy.config.image import IMAGE
from lxdpy.config.instance import INSTANCE
from lxdpy.config.key import KeyTable
from lxdpy.config.member import MEMBER
from lxdpy.config.network import FORWARD
from lxdpy.config.network import TABLES as NETWORKS
from lxdpy.config.pool import POOL
from lxdpy.config.project import PROJECT
from lxdpy.config.server import SERVER
from lxdpy.config.volume import VOLUME

ENTITIES = (SERVER, MEMBER, INSTANCE, PROJECT, POOL, VOLUME, IMAGE, *NETWORKS.values(), FORWARD)


def everything(*drivers: KeyTable) -> dict[str, KeyTable]:
    """All tables by name, those of the given drivers among them: what the documentation page shows."""
    return {table.name: table for table in (*ENTITIES, *drivers)}
