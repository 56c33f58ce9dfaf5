"""Bodies and answers of a recovery, in LXD's words."""

import msgspec

from lxdpy.resources.profiles.model import Config


class PoolAsked(msgspec.Struct):
    """A pool that the cluster does not know, or this member could not open."""

    name: str = ""
    driver: str = ""
    description: str = ""
    config: Config | None = None


class RecoverPost(msgspec.Struct):
    pools: list[PoolAsked] | None = None


class UnknownVolume(msgspec.Struct, frozen=True, rename={"snapshot_count": "snapshotCount"}):
    """What lies in a pool and is not registered."""

    pool: str
    project: str
    type: str  # container or custom
    name: str
    snapshot_count: int


class Validated(
    msgspec.Struct,
    frozen=True,
    rename={"unknown_volumes": "unknownVolumes", "dependency_errors": "dependencyErrors"},
):
    unknown_volumes: list[UnknownVolume] = []
    dependency_errors: list[str] = []
