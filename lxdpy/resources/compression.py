"""What archives are compressed with: what is asked for, or else what project or server say."""

from cluster.errors import Invalid
from cluster.state.txn import State
from lxdpy.config.types import compression
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.server.model import setting

BACKUPS = "backups.compression_algorithm"
IMAGES = "images.compression_algorithm"


def compression_of(state: State, project: str, key: str, asked: str) -> str:
    """A compressor with its options, or `none`. `key` is the setting's. Raises Invalid."""
    configured = state.get(PROJECTS, project).config.get(key)
    chosen = asked or configured or setting(state, key, "gzip")
    try:
        compression(chosen)
    except ValueError as wanted:
        text = f'Invalid compression algorithm "{chosen[:80]}": it is not {wanted}'
        raise Invalid(text, key="compression_algorithm", value=chosen[:80]) from None
    return chosen
