"""PURE: all tables and all commands: what the state machine is made of. A noun is added here, once."""

from typing import Any

from cluster.membership import certificates as member_certificates
from cluster.membership import commands as membership
from cluster.membership import features, groups
from cluster.membership.model import TABLES as MEMBERSHIP_TABLES
from cluster.state.command import Command
from cluster.state.machine import Machine
from cluster.state.table import Table
from lxdpy.resources.backups import commands as backups
from lxdpy.resources.backups.model import BACKUPS
from lxdpy.resources.certificates import commands as certificates
from lxdpy.resources.certificates.model import CERTIFICATES
from lxdpy.resources.cluster import commands as cluster
from lxdpy.resources.gpu_queue import commands as gpu_queue
from lxdpy.resources.gpu_queue.model import GPU_QUEUE
from lxdpy.resources.gpus import commands as gpus
from lxdpy.resources.gpus.model import GPUS, GPUS_KEPT
from lxdpy.resources.gpus.usage import USAGE
from lxdpy.resources.images import commands as images
from lxdpy.resources.images.model import ALIASES, IMAGES
from lxdpy.resources.instances import commands as instances
from lxdpy.resources.instances.model import IDMAPS, INSTANCES
from lxdpy.resources.migration import commands as migration
from lxdpy.resources.migration.model import RESIDUES
from lxdpy.resources.networks import commands as networks
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.parking import commands as parking
from lxdpy.resources.profiles import commands as profiles
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.projects import commands as projects
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.recovery import commands as recovery
from lxdpy.resources.server import commands as server
from lxdpy.resources.server.model import SETTINGS
from lxdpy.resources.snapshots import commands as snapshots
from lxdpy.resources.snapshots.model import SNAPSHOTS
from lxdpy.resources.storage_pools import commands as storage_pools
from lxdpy.resources.storage_pools.model import GONE_POOLS, POOLS
from lxdpy.resources.storage_volumes import commands as storage_volumes
from lxdpy.resources.storage_volumes.model import VOLUMES
from lxdpy.resources.volume_backups import commands as volume_backups
from lxdpy.resources.volume_snapshots import commands as volume_snapshots
from lxdpy.resources.warnings import commands as warnings
from lxdpy.resources.warnings.model import WARNINGS

TABLES: tuple[Table[Any], ...] = (
    *MEMBERSHIP_TABLES,
    SETTINGS,
    CERTIFICATES,
    PROJECTS,
    PROFILES,
    IMAGES,
    ALIASES,
    POOLS,
    GONE_POOLS,
    VOLUMES,
    NETWORKS,
    INSTANCES,
    IDMAPS,
    SNAPSHOTS,
    BACKUPS,
    RESIDUES,
    GPUS,
    USAGE,
    GPU_QUEUE,
    GPUS_KEPT,
    WARNINGS,
)

COMMANDS: tuple[type[Command], ...] = (
    *membership.COMMANDS,
    *features.COMMANDS,
    *member_certificates.COMMANDS,
    *groups.COMMANDS,
    *cluster.COMMANDS,
    *server.COMMANDS,
    *certificates.COMMANDS,
    *projects.COMMANDS,
    *profiles.COMMANDS,
    *images.COMMANDS,
    *storage_pools.COMMANDS,
    *storage_volumes.COMMANDS,
    *volume_snapshots.COMMANDS,
    *volume_backups.COMMANDS,
    *parking.COMMANDS,
    *networks.COMMANDS,
    *instances.COMMANDS,
    *snapshots.COMMANDS,
    *backups.COMMANDS,
    *migration.COMMANDS,
    *recovery.COMMANDS,
    *gpus.COMMANDS,
    *gpu_queue.COMMANDS,
    *warnings.COMMANDS,
)


def new_machine() -> Machine:
    return Machine(TABLES, COMMANDS, features=features.FEATURES, level=features.level_of)
