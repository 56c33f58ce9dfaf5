"""python -m tests.logs.record [--anew]: see the package's docstring."""

import os
import shutil
import sys
from pathlib import Path

import msgspec

from cluster.raft import batches
from cluster.raft.codec import NO_OP, REGULAR, dumps
from cluster.raft.journal import Identity, Journal
from cluster.raft.recover import found
from lxdpy.resources.tables import COMMANDS, new_machine
from tests.logs.replay import (
    CLUSTER,
    HERE,
    LEVELS,
    MEMBER,
    Line,
    breaks,
    folder_of,
    lines_of,
    log_of,
    recorded_shapes,
    replayed,
    shapes,
)

IN_SNAPSHOT = 0.5  # share of the commands
TERM = 3
METHOD = 0  # number of the library's only replicated method, `Core.entry`


def record(level: int, *, anew: bool) -> None:
    lines = lines_of(level)
    done = list(replayed(lines))
    for number, (line, now) in enumerate(zip(lines, done, strict=True), 1):
        if line.digest and not anew and line != now:
            sys.exit(f"{log_of(level)}:{number}: {line.command['command']} did something else when recorded")
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in done)
    if text != log_of(level).read_bytes() or not folder_of(level).exists():
        log_of(level).write_bytes(text)
        keep_folder(folder_of(level), done)


def keep_folder(folder: Path, lines: list[Line]) -> None:
    """As of a member that made a snapshot half way; without the space that is allocated ahead."""
    machine, middle = new_machine(), int(len(lines) * IN_SNAPSHOT)
    for number, line in enumerate(lines[:middle]):
        machine.apply(number + 2, line.entry(number))
    identity = Identity(CLUSTER, MEMBER)
    chunks = machine.dump_chunks(machine.state, machine.remembered())
    found(folder, identity, chunks, (middle + 1, TERM), lambda: None)
    journal = Journal(folder / "journal", identity)
    journal.add(NO_OP, middle, TERM)
    journal.add(NO_OP, middle + 1, TERM)
    for number, line in enumerate(lines[middle:], middle):
        entry = batches.pack([line.entry(number)])
        journal.add(REGULAR + dumps((METHOD, (entry,))), number + 2, TERM)
    journal.setRaftCommitIndex(len(lines) + 1)
    journal.close()
    os.truncate(folder / "journal", journal.bytes_on_disk)


def main() -> None:
    anew = "--anew" in sys.argv
    for level in LEVELS:
        if anew:
            shutil.rmtree(folder_of(level), ignore_errors=True)
        record(level, anew=anew)
    said = {line.command["command"] for level in LEVELS for line in lines_of(level)}
    if missing := [tag for command in COMMANDS if (tag := command.__struct_config__.tag) not in said]:
        print("not in a log yet:", *missing)
    if not anew and (broken := breaks(recorded_shapes(), shapes())):
        sys.exit("\n".join(broken))
    lines = [msgspec.json.encode({name: shape}) + b"\n" for name, shape in shapes().items()]
    (HERE / "shapes.jsonl").write_bytes(b"".join(lines))


if __name__ == "__main__":
    main()
