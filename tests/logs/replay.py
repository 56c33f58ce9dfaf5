"""Lines of a recorded log, and what becomes of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.state.command import Proposal
from cluster.state.machine import Machine, digest
from lxdpy.resources.tables import COMMANDS, TABLES, new_machine

HERE = Path(__file__).parent
LEVELS = (1,)
MEMBER = "0" * 11 + "1"  # whose folder is kept
CLUSTER = "c" * 32


class Line(msgspec.Struct, omit_defaults=True):
    """A command as it was proposed, and what it came to."""

    at: float
    command: dict[str, Any]
    by: dict[str, str] = {}
    level: int = 1
    refused: str = ""  # kind of the refusal
    digest: str = ""  # of the state after it

    def entry(self, number: int) -> bytes:
        """As it is in the log."""
        proposal = Proposal(
            request_id=f"r{number}",
            proposer=MEMBER,
            proposed_at=self.at,
            command=msgspec.Raw(msgspec.msgpack.encode(self.command)),
            by=self.by,
            level=self.level,
        )
        return msgspec.msgpack.encode(proposal)


def log_of(level: int) -> Path:
    return HERE / f"level-{level}.jsonl"


def folder_of(level: int) -> Path:
    return HERE / f"level-{level}"


def lines_of(level: int) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in log_of(level).read_bytes().splitlines()]


def replayed(lines: Sequence[Line]) -> Iterator[Line]:
    """The same lines with what they come to now."""
    machine: Machine = new_machine()
    for number, line in enumerate(lines):
        error = machine.apply(number + 2, line.entry(number)).error
        refused = error.kind if error else ""
        yield msgspec.structs.replace(line, refused=refused, digest=digest(machine.state))


def shapes() -> dict[str, Any]:
    """What is said of each struct that a log or a snapshot has: its fields, their types and defaults."""
    kinds = [*COMMANDS, *(table.row for table in TABLES), Proposal]
    _, found = msgspec.json.schema_components(kinds)
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found, order="sorted"))
    return read


def recorded_shapes() -> dict[str, Any]:
    lines = (HERE / "shapes.jsonl").read_bytes().splitlines()
    return {name: shape for line in lines for name, shape in msgspec.json.decode(line).items()}


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why a member with `new` shapes could misread what was written with `old` ones."""
    found = [f"{name} is gone" for name in old.keys() - new.keys()]
    for name in old.keys() & new.keys():
        before, after = old[name].get("properties", {}), new[name].get("properties", {})
        found += [f"{name}.{field} is gone" for field in before.keys() - after.keys()]
        found += [
            f"{name}.{field} was {before[field]}, is {after[field]}"
            for field in before.keys() & after.keys()
            if not is_wider(before[field], after[field])
        ]
        demanded = set(new[name].get("required", ())) - set(old[name].get("required", ()))
        found += [f"{name}.{field} has no default" for field in demanded]
    return sorted(found)


def is_wider(before: Any, after: Any) -> bool:
    """Whether all that fitted `before` fits `after`, and means the same. Only lists of choices may grow."""
    if isinstance(before, dict) and isinstance(after, dict) and "enum" in before.keys() & after.keys():
        before, after = dict(before), dict(after)
        return set(before.pop("enum")) <= set(after.pop("enum")) and is_wider(before, after)
    if isinstance(before, dict) and isinstance(after, dict):
        same = before.keys() == after.keys()
        return same and all(is_wider(value, after[key]) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(is_wider, before, after))
    return bool(before == after)
