"""All routes: what the API consists of. A noun is added here, once."""

from dataclasses import replace

from lxdpy.resources.backups import handlers as backups
from lxdpy.resources.certificates import handlers as certificates
from lxdpy.resources.cluster import certificate, digest, groups, internal, rejoin
from lxdpy.resources.cluster import handlers as cluster
from lxdpy.resources.events import handlers as events
from lxdpy.resources.gpu_queue import handlers as gpu_queue
from lxdpy.resources.gpus import accounts, figures
from lxdpy.resources.gpus import handlers as gpus
from lxdpy.resources.hardware import handlers as hardware
from lxdpy.resources.images import aliases, export
from lxdpy.resources.images import handlers as images
from lxdpy.resources.instances import console, files, logs, state
from lxdpy.resources.instances import exec as execs
from lxdpy.resources.instances import handlers as instances
from lxdpy.resources.instances import metadata as instance_metadata
from lxdpy.resources.metadata import handlers as metadata
from lxdpy.resources.metrics import handlers as metrics
from lxdpy.resources.migration import handlers as migration
from lxdpy.resources.networks import forwards, unsupported
from lxdpy.resources.networks import handlers as networks
from lxdpy.resources.openapi.handlers import routes_of
from lxdpy.resources.operations import handlers as operations
from lxdpy.resources.parking import handlers as parking
from lxdpy.resources.profiles import handlers as profiles
from lxdpy.resources.projects import handlers as projects
from lxdpy.resources.recovery import handlers as recovery
from lxdpy.resources.remotes import handlers as remotes
from lxdpy.resources.server import control
from lxdpy.resources.server import handlers as server
from lxdpy.resources.snapshots import handlers as snapshots
from lxdpy.resources.storage_pools import handlers as storage_pools
from lxdpy.resources.storage_volumes import handlers as storage_volumes
from lxdpy.resources.volume_backups import handlers as volume_backups
from lxdpy.resources.volume_snapshots import handlers as volume_snapshots
from lxdpy.resources.warnings import handlers as warnings
from lxdpy.rest.route import Routes


def also_at(prefix: str, of: Routes) -> Routes:
    """The same routes below another prefix."""
    twins = Routes(prefix)
    twins.all = [replace(route, pattern=prefix + route.pattern.removeprefix(of.prefix)) for route in of.all]
    return twins


INSTANCES = (
    instances.routes,
    state.routes,
    console.routes,
    execs.routes,
    files.routes,
    logs.routes,
    instance_metadata.routes,
    migration.routes,
    parking.routes,
    snapshots.routes,
    backups.routes,
)
CONTAINERS = "/1.0/containers"  # what /1.0/instances was called first; pylxd still does

NOUNS: tuple[Routes, ...] = (
    server.routes,
    control.routes,
    certificates.routes,
    cluster.routes,
    certificate.routes,
    certificate.internal,
    groups.routes,
    internal.routes,
    rejoin.routes,
    digest.routes,
    events.routes,
    gpus.routes,
    figures.internal,
    accounts.routes,
    gpu_queue.routes,
    hardware.routes,
    aliases.routes,
    images.routes,
    export.routes,
    export.internal,
    *INSTANCES,
    *(also_at(CONTAINERS + noun.prefix.removeprefix("/1.0/instances"), noun) for noun in INSTANCES),
    metadata.routes,
    metrics.routes,
    migration.internal,
    remotes.internal,
    recovery.routes,
    networks.routes,
    networks.internal,
    forwards.routes,
    *unsupported.ROUTES,
    operations.routes,
    operations.internal,
    profiles.routes,
    projects.routes,
    storage_pools.routes,
    storage_volumes.routes,
    volume_snapshots.routes,
    volume_backups.routes,
    storage_volumes.internal,
    warnings.routes,
)
ROUTES = (*NOUNS, routes_of(NOUNS))
