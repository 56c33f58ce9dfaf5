"""`scripts/fault-run`: trouble for so long, from a seed; 0 if the cluster kept its word, 1 if not."""

import argparse
import random
import shutil
import sys
from pathlib import Path

import msgspec

from lxdpy.dev.faults.acts import ACTS, KILLS
from lxdpy.dev.faults.run import scene, trouble

STATES = Path("/var/lib")  # on a real disk, with paths short enough for unix sockets


def main() -> int:
    parser = argparse.ArgumentParser(prog="fault-run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", default="", help="the same seed chooses the same faults (default: any)")
    parser.add_argument("--members", type=int, choices=(3, 5), default=3)
    parser.add_argument("--kills", action="store_true", help="only kill -9 and the like")
    parser.add_argument("--only", default="", help="only these faults, separated by commas")
    parser.add_argument("--keep", type=Path, help="folder for verdict and the daemons' logs")
    args = parser.parse_args()
    seed = args.seed or str(random.SystemRandom().randrange(10**6))
    wanted = set(filter(None, args.only.split(",")))
    chosen = KILLS if args.kills else ACTS
    acts = {act: weight for act, weight in chosen.items() if not wanted or act.__name__ in wanted}
    print(f"seed {seed}", flush=True)
    with scene(STATES / f"lxdpy-fault-{seed}", args.members, seed) as stage:
        try:
            verdict = trouble(stage, args.minutes * 60, seed, acts, lambda text: print(text, flush=True))
        finally:
            if args.keep:
                keep(args.keep, stage.cluster.state)
    print(verdict.text())
    if args.keep:
        (args.keep / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    return 1 if verdict.wrongs else 0


def keep(folder: Path, state: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for log in state.glob("*.log"):
        shutil.copy(log, folder)


if __name__ == "__main__":
    sys.exit(main())
