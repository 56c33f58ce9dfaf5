"""`scripts/dev-cluster`: up, down, status."""

import argparse
import sys
from pathlib import Path

from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, NotReady
from lxdpy.dev.netns import Failed

STATE = Path("/var/lib/lxdpy-dev")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev-cluster", description="A cluster of daemons on this host.")
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--members", type=int, default=3, help="how many daemons (default 3)")
    parser.add_argument(
        "--gpus",
        default="2",
        help="fake GPUs each: a number of NVIDIA's, or a profile as dgx-a100 (default 2)",
    )
    parser.add_argument("--state", type=Path, default=STATE, help=f"folder of all files (default {STATE})")
    parser.add_argument("--apart", action="store_true", help="start the daemons, but do not join them")
    args = parser.parse_args()
    try:
        return {"up": up, "down": down, "status": status}[args.verb](args)
    except (Failed, NotReady, Refused, OSError) as failure:
        print(f"dev-cluster: {failure}", file=sys.stderr)
        return 1


def up(args: argparse.Namespace) -> int:
    cluster = _found(args.state) or Cluster(args.state.name.removeprefix("lxdpy-"), args.state, args.members)
    cluster.up(int(args.gpus) if args.gpus.isdigit() else args.gpus)
    if not args.apart:
        cluster.join()
    return status(args)


def down(args: argparse.Namespace) -> int:
    if cluster := _found(args.state):
        cluster.down()
    return 0


def status(args: argparse.Namespace) -> int:
    """0 if all daemons run, 3 if not: as init scripts have it."""
    cluster = _found(args.state)
    if not cluster:
        print(f"no cluster in {args.state}")
        return 3
    running = [member.pid() for member in cluster.members]
    for member, pid in zip(cluster.members, running, strict=True):
        doing = f"pid {pid}" if pid else "stopped"
        print(f"{member.name}  {doing:<12} {member.address}  LXD_DIR={member.folder}")
    return 0 if all(running) else 3


def _found(state: Path) -> Cluster | None:
    try:
        return Cluster.found(state)
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
