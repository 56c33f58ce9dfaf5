"""Raft commands of parking. The owner proposes them, once the device files are out of the container."""

from typing import Literal

import msgspec

from cluster.errors import Conflict, Invalid
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.gpus.commands import Grant, granted, regrant, release
from lxdpy.resources.instances.commands import owned
from lxdpy.resources.instances.model import INSTANCES, LEASED, PARKED, WARNED, Instance
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.projects.permitted import check_gpus

replace = msgspec.structs.replace
Why = Literal["asked", "idle", "lease"]


class ParkInstance(Command, frozen=True, tag="instance.park"):
    """Its GPUs are anybody's. Repeating it changes nothing."""

    key: str
    owner: str
    why: Why = "asked"

    def apply(self, txn: Txn) -> None:
        before = _running(txn, self.key, self.owner)
        if PARKED in before.config:
            return
        if not granted(before.config):
            raise Invalid("The instance holds no GPUs", instance=before.name)
        config = without(release(txn, self.key, before.config), LEASED, WARNED)
        txn.put(INSTANCES, self.key, replace(before, config={**config, PARKED: self.why}))


class UnparkInstance(Command, frozen=True, tag="instance.unpark"):
    """It holds these GPUs. Raises Conflict with the fact RACED when another was faster."""

    key: str
    owner: str
    grants: tuple[Grant, ...] = ()

    def apply(self, txn: Txn) -> None:
        before = _running(txn, self.key, self.owner)
        if PARKED not in before.config:
            raise Conflict("The instance is not parked", instance=before.name)
        config = regrant(txn, self.key, self.owner, self.grants, before.config, started=True)
        txn.put(INSTANCES, self.key, replace(before, config=without(config, PARKED)))
        check_gpus(txn, before.project)


class RenewLease(Command, frozen=True, tag="instance.lease.renew"):
    """Its lease begins now."""

    key: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(INSTANCES, self.key)
        if not granted(before.config):
            raise Invalid("The instance holds no GPUs", instance=before.name)
        config = {**without(before.config, WARNED), LEASED: f"{txn.now:.0f}"}
        txn.put(INSTANCES, self.key, replace(before, config=config))


class WarnOfLease(Command, frozen=True, tag="instance.lease.warn"):
    """Its lease is about to run out: everybody who listens is told, once."""

    key: str
    owner: str
    ends_at: float  # unix seconds

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if WARNED not in before.config and granted(before.config):
            config = {**before.config, WARNED: f"{self.ends_at:.0f}"}
            txn.put(INSTANCES, self.key, replace(before, config=config))


def without(config: Config, *keys: str) -> Config:
    return {key: value for key, value in config.items() if key not in keys}


def _running(txn: Txn, key: str, owner: str) -> Instance:
    row = owned(txn, key, owner)
    if row.status not in ("Running", "Frozen"):
        raise Conflict("The instance is not running", instance=row.name)
    return row


COMMANDS: tuple[type[Command], ...] = (ParkInstance, UnparkInstance, RenewLease, WarnOfLease)
