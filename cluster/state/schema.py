"""Upgrades of dumps between versions of the state: one pure function a step, never changed once released."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.state.machine import Chunk

SCHEMA = 1  # of dumps this version writes


def upgrade(schema: int, chunks: "Iterable[Chunk]") -> "Iterable[Chunk]":
    """`chunks` as this version reads them. Raises ValueError for a dump of a newer version."""
    if schema > SCHEMA:
        raise ValueError(f"dump has schema {schema}, this version reads up to {SCHEMA}")
    return chunks
