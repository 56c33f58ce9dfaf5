"""YAML that is plain data and no more: by libyaml where it was built, else in Python, ten times as slowly."""

from typing import TYPE_CHECKING, Any

import yaml

__all__ = ["Dumper", "Loader", "load"]

if TYPE_CHECKING:
    from yaml import SafeDumper as Dumper
    from yaml import SafeLoader as Loader
else:
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(written: str | bytes) -> Any:
    """Raises yaml.YAMLError, also for tags that would make anything else."""
    return yaml.load(written, Loader)  # noqa: S506 - a safe loader either way
