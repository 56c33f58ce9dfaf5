"""Projects: rows, bodies, and what project another noun's rows are looked up in."""

import msgspec

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn

DEFAULT = "default"
# A project without the feature uses the default project's rows of that noun.
FEATURES = ("features.images", "features.profiles", "features.storage.volumes", "features.networks")


class Project(Stored, frozen=True):
    """Key: name."""

    name: str
    description: str = ""
    config: dict[str, str] = {}


PROJECTS: Table[Project] = Table("projects", Project)


def home(state: State | Txn, project: str, feature: str) -> str:
    """The project whose rows `project` uses for a noun: its own if it has `features.<feature>`.

    Raises NotFound for an unknown project.
    """
    row = state.get(PROJECTS, project)
    return project if on(row.config, f"features.{feature}") else DEFAULT


def on(config: dict[str, str], feature: str) -> bool:
    """What is not set is off; new projects have most features set."""
    return config.get(feature, "").lower() in ("true", "1", "yes", "on")


class ProjectsPost(msgspec.Struct):
    name: str = ""
    description: str = ""
    config: dict[str, str] | None = None


class ProjectPut(msgspec.Struct):
    description: str | None = None
    config: dict[str, str] | None = None
