"""Server configuration: one row a key; keys of one member are under its id."""

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn


class Setting(Stored, frozen=True):
    """Key: the config key for the cluster's settings, "<member id>/<key>" for a member's own."""

    value: str


SETTINGS: Table[Setting] = Table("settings", Setting)


def setting(state: State | Txn, key: str, default: str = "") -> str:
    """A setting of the whole cluster."""
    row = state.find(SETTINGS, key)
    return row.value if row else default


def member_setting(state: State | Txn, member: str, key: str, default: str = "") -> str:
    """A setting of one member (by id)."""
    return setting(state, f"{member}/{key}", default)
