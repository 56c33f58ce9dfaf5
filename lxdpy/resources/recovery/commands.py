"""Raft commands of recoveries."""

from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.instances.commands import record
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.storage_volumes.commands import reserve
from lxdpy.resources.storage_volumes.model import StorageVolume


class Recover(Command, frozen=True, tag="recovery.import"):
    """Register what its owner has found in its pools: all or none. Instances are stopped, without GPUs."""

    volumes: tuple[StorageVolume, ...] = ()
    instances: tuple[Instance, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()  # of these instances

    def apply(self, txn: Txn) -> None:
        for volume in self.volumes:
            reserve(txn, volume, "Ready")
        for instance in self.instances:
            own = tuple(
                one
                for one in self.snapshots
                if (one.project, one.instance) == (instance.project, instance.name)
            )
            record(txn, instance, (), own, status="Stopped")


COMMANDS: tuple[type[Command], ...] = (Recover,)
