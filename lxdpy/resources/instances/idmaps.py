"""PURE: host ids that no instance has yet."""

from cluster.errors import Conflict, Exhausted, Invalid
from cluster.state.txn import Txn
from lxdpy.resources.instances.model import IDMAP_BASE, IDMAP_SIZE, IDMAP_SLOTS, IDMAPS


def free_slot(txn: Txn, hint: int) -> int:
    """A range of host ids nobody has. Raises Exhausted.

    Probing starts at the proposer's hint (random), so that a free slot is found at once in a sparse table.
    """
    taken = txn.rows(IDMAPS)
    for step in range(IDMAP_SLOTS):
        slot = (hint + step) % IDMAP_SLOTS
        if str(slot) not in taken:
            return slot
    raise Exhausted(f"All {IDMAP_SLOTS} id maps are taken")


def free_run(txn: Txn, hint: int, length: int) -> int:
    """The first of so many free slots in a row. Raises Exhausted."""
    taken = txn.rows(IDMAPS)
    found = 0
    for step in range(IDMAP_SLOTS + length):
        slot = (hint + step) % IDMAP_SLOTS
        found = 0 if str(slot) in taken else 1 if slot == 0 else found + 1
        if found >= length:
            return slot - length + 1
    raise Exhausted(f"No range of {length * IDMAP_SIZE} free ids is left", key="security.idmap.size")


def check_free(txn: Txn, slots: range, base: int) -> None:
    """`base` is the id that was asked for. Raises Invalid, Conflict."""
    if slots[0] < 0 or slots[-1] >= IDMAP_SLOTS:
        last = IDMAP_BASE + IDMAP_SLOTS * IDMAP_SIZE - 1
        raise Invalid(f"Host ids of instances are from {IDMAP_BASE} to {last}", key="security.idmap.base")
    for slot in slots:
        if other := txn.find(IDMAPS, str(slot)):
            raise Conflict(
                f"Host ids from {base} on are those of another instance, or too near to them",
                instance=other.instance, key="security.idmap.base",
            )  # fmt: skip
