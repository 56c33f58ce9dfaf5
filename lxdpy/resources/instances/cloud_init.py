"""What cloud-init knows an instance by: another number, and it sets the instance up anew at its next boot."""

import uuid

from lxdpy.resources.profiles.model import Config

NOTE = "volatile.cloud-init.instance-id"
KEYS = tuple(f"cloud-init.{data}" for data in ("network-config", "user-data", "vendor-data")) + tuple(
    f"user.{data}" for data in ("meta-data", "network-config", "user-data", "vendor-data")
)


def another() -> Config:
    """A note that makes the instance a new one to cloud-init."""
    return {NOTE: str(uuid.uuid4())}


def differs(one: Config, other: Config) -> bool:
    """Whether cloud-init is told something else."""
    return any(one.get(key) != other.get(key) for key in KEYS)
