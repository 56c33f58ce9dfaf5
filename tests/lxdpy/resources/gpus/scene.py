"""Rows for tests of the GPU ledger."""

import msgspec

from cluster.membership.model import MEMBERS, Member
from lxdpy.resources.gpus.commands import Grant, volatile_of
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder
from lxdpy.resources.instances.model import INSTANCES, Instance, Status
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, LocalStore

OTHER = "ba9876543210"


def gpu(uuid: str, member: str = MEMBER_ID, pci: str = "0000:07:00.0", *holders: Holder) -> GpuRow:
    return GpuRow(uuid, member, "nvidia", "NVIDIA A100", 40 << 30, pci_address=pci, holders=holders)


def second_member(store: LocalStore, name: str = "n2", id: str = OTHER) -> None:
    store.put(MEMBERS, id, Member(id, name, status="ready"))


def add(store: LocalStore, *rows: GpuRow) -> None:
    for row in rows:
        store.put(GPUS, row.uuid, row)


def created(
    store: LocalStore,
    name: str,
    uuid: str,
    *,
    status: Status = "Stopped",
    started: bool = False,
    location: str = MEMBER_ID,
    **config: str,
) -> str:
    """An instance that was granted a GPU now; its key."""
    if store.state.find(PROJECTS, "default") is None:
        store.run(CreateDefaults())
    granted = volatile_of((Grant("gpu", uuid),))
    row = Instance("default", name, name, location, status=status, config={**config, **granted})
    store.put(INSTANCES, row.key, row)
    holder = Holder(row.key, "gpu", "exclusive", since=store.now, started=started)
    held = store.state.get(GPUS, uuid)
    store.put(GPUS, uuid, msgspec.structs.replace(held, holders=(*held.holders, holder)))
    return row.key
