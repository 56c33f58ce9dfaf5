"""`scripts/bench`: which measures, of whom, and where the figures go."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from lxdpy.dev.api import Refused as Unanswered
from lxdpy.dev.bench import clustered, crowd, raft, simulation, single, tls
from lxdpy.dev.bench.daemons import LXD, LXDPY, Kind
from lxdpy.dev.bench.figures import Measure, Result, as_json, result
from lxdpy.dev.bench.load import Refused
from lxdpy.dev.bench.peer import Peer
from lxdpy.dev.bench.step import FULL, QUICK, Scale, Step, play
from lxdpy.dev.bench.table import table
from lxdpy.dev.members import NotReady
from lxdpy.dev.netns import Failed, run

STATES = Path("/var/lib")  # on a real disk, with paths short enough for unix sockets
LOCKS = Path("/run/lxc/lock")  # where LXC makes a folder for each of its own
GROUPS = ((1, single.STEPS + crowd.STEPS), (clustered.MEMBERS, clustered.STEPS))
INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends", "lxd")
INSTALL_WITHIN = 600  # seconds
SIMULATED = 50  # instances of a member of the simulated cluster
SIMULATED_WITHIN = 600  # seconds
TERMINATED = 128 + signal.SIGTERM  # exit status, as a shell tells it
PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def main() -> int:
    known = [measure.name for measure in measures()]
    parser = argparse.ArgumentParser(prog="bench", description="How fast it is. Needs root.")
    parser.add_argument("--quick", action="store_true", help="fewer of everything: a minute or two")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of: {' '.join(known)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--instances", type=int, metavar="N", help="of measures with many instances")
    parser.add_argument(
        "--against", choices=("lxd",), help="take turns with Debian's; installs it if missing"
    )
    args = parser.parse_args()
    only = {name for name in args.only.split(",") if name}
    if unknown := only - set(known):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that all is taken away
    try:
        return bench(kinds(args.against), scale_of(args), only, args.json)
    except (Failed, NotReady, Refused, Unanswered, OSError, subprocess.SubprocessError) as failure:
        for reason in reasons(failure):
            say(f"bench: {reason}")
        return 1


def scale_of(args: argparse.Namespace) -> Scale:
    scale = QUICK if args.quick else FULL
    return msgspec.structs.replace(scale, instances=args.instances or scale.instances)


def measures() -> Iterator[Measure]:
    for _, steps in GROUPS:
        for step in steps:
            yield from step.measures
    yield from tls.MEASURES
    yield from raft.MEASURES
    yield from simulation.MEASURES


def reasons(failure: BaseException | None) -> Iterator[str]:
    """Of a failure, and of those before it: taking away may fail because of what failed first."""
    while failure is not None:
        yield str(failure) or type(failure).__name__
        failure = failure.__context__


def kinds(against: str | None) -> Sequence[Kind]:
    if not against:
        return (LXDPY,)
    if not Path("/usr/bin/lxd").exists():
        say("installing Debian's lxd")
        run(*INSTALL, timeout=INSTALL_WITHIN, environment=PLAIN | {"DEBIAN_FRONTEND": "noninteractive"})
    return (LXDPY, LXD)


def bench(of: Sequence[Kind], scale: Scale, only: set[str], target: Path | None) -> int:
    """All groups, one after the other; prints figures as they come, and the table at the end."""
    results: list[Result] = []
    versions: dict[str, str] = {}
    for members, steps in GROUPS:
        chosen = [step for step in steps if wanted(step, only)]
        if chosen:
            with peers(of, members) as standing:
                results += asyncio.run(measured(standing, chosen, scale))
                versions |= {peer.kind.name: peer.version for peer in standing}
    results += alone(tls, "TLS alone", of[0], scale, only)
    results += alone(raft, "the log alone", of[0], scale, only)
    results += simulated(of[0], scale, only)
    print(table(results, [kind.name for kind in of]))
    if target:
        target.write_bytes(as_json(results, facts(versions, scale)))
    return 0


def simulated(kind: Kind, scale: Scale, only: set[str]) -> Sequence[Result]:
    """A large cluster without containers: in a process of its own, as its memory is measured."""
    chosen = [measure for measure in simulation.MEASURES if not only or measure.name in only]
    if not chosen:
        return []
    members = scale.simulated // SIMULATED
    say(f"{kind.name}: simulation of {members} members, {scale.simulated} instances")
    sizes = ("--members", str(members), "--instances", str(scale.simulated), "--folder", str(STATES))
    words = (sys.executable, "-m", "lxdpy.dev.bench.simulation", *sizes)
    samples = json.loads(run(*words, timeout=SIMULATED_WITHIN, environment=PLAIN))
    found = [result(measure, {kind.name: [samples[measure.name]]}) for measure in chosen]
    return [each for each in found if each]


@contextmanager
def peers(of: Sequence[Kind], members: int) -> Iterator[Sequence[Peer]]:
    """Not yet started; taken away at the end, whatever happened."""
    # Short names: LXC's command sockets and unix sockets have to fit in 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="lxdpy-bench-", dir=STATES))
    folder.chmod(0o711)
    made = [Peer(kind, folder / f"{folder.name[-6:]}-{kind.name}{members}", members) for kind in of]
    with ExitStack() as leaving:
        leaving.callback(shutil.rmtree, LOCKS / folder.relative_to("/"), ignore_errors=True)
        leaving.callback(folder.rmdir)
        for peer in made:
            leaving.callback(peer.down)
        yield made


async def measured(standing: Sequence[Peer], steps: Sequence[Step], scale: Scale) -> Sequence[Result]:
    """The first peer is ours: it builds the image, and all others get the same bytes."""
    names = [peer.kind.name for peer in standing]
    results = []
    image = b""
    for peer in standing:
        say(f"{peer.kind.name}: start, members {len(peer.daemons)}")
        image = await peer.up(image)
    for step in steps:
        turns = await play(step, standing, scale)
        for found in filter(None, (result(measure, turns[measure.name]) for measure in step.measures)):
            results.append(found)
            say(table([found], names).splitlines()[1])
    return results


class Alone(Protocol):
    """A module that measures a part of ours by itself, in a folder that it makes."""

    @property
    def MEASURES(self) -> tuple[Measure, ...]: ...

    def measured(
        self, folder: Path, scale: Scale
    ) -> Coroutine[None, None, Mapping[str, Sequence[Sequence[float]]]]: ...


def alone(part: Alone, title: str, kind: Kind, scale: Scale, only: set[str]) -> Sequence[Result]:
    """All of its measures or none: each stands on those before."""
    if only and not only & {measure.name for measure in part.MEASURES}:
        return []
    say(f"{kind.name}: {title}")
    with tempfile.TemporaryDirectory(prefix="lxdpy-bench-", dir=STATES) as folder:
        turns = asyncio.run(part.measured(Path(folder) / "part", scale))
    found = [result(measure, {kind.name: turns[measure.name]}) for measure in part.MEASURES]
    return list(filter(None, found))


def wanted(step: Step, only: set[str]) -> bool:
    return not only or any(measure.name in only for measure in step.measures)


def facts(versions: dict[str, str], scale: Scale) -> dict[str, object]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0],
        "versions": versions, "scale": scale,
    }  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
