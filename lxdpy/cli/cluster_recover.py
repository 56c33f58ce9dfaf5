"""lxdpy cluster recover"""

import secrets
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from cluster.address import parse_address
from cluster.errors import Invalid
from cluster.membership import identity as identities
from cluster.raft.recover import take_over
from lxdpy.cli.output import note, table
from lxdpy.cli.stopped import Stopped, clustered, stopped
from lxdpy.host.paths import lxd_dir

ANSWERS_WITHIN = 1.0  # seconds
HEADERS = ("STATE", "MEMBER", "TERM", "LAST ENTRY", "COMMITTED", "VOTERS")


@click.command()
@click.argument("others", nargs=-1, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(others: tuple[Path, ...], yes: bool) -> None:
    """Go on with one member when the majority is lost for good.

    Looks at the state below $LXD_DIR, and at that of OTHERS: state directories of other members, or copies
    of them. The newest becomes a cluster of one, with all that is known of the cluster; the others stay in
    its list, offline. All daemons must be stopped.
    """
    with ExitStack() as open_ones:
        roots = list(dict.fromkeys((lxd_dir(), *(other.absolute() for other in others))))
        found = [clustered(open_ones.enter_context(stopped(root))) for root in roots]
        table(HEADERS, [shown(member) for member in found])
        survivor, cluster_id = chosen(found)
        for line in preview(survivor, found):
            note(line)
        if not yes:
            click.confirm(f"Make {survivor.name} the only voter?", abort=True)
        make_sole(survivor, cluster_id)
        note(f"{survivor.name} is a cluster of its own now: start its daemon")


def shown(member: Stopped) -> tuple[str, ...]:
    found = member.findings
    last = f"{found.last} of term {found.last_term}"
    voters = member.names(found.voters)
    return str(member.root), member.name, str(found.term), last, f">= {found.committed}", voters


def chosen(found: Sequence[Stopped]) -> tuple[Stopped, str]:
    """Who goes on, and the id of its new cluster; a take-over that was cut short goes on. Raises Invalid."""
    for member in found:
        if member.findings.begun:
            return member, member.findings.begun.cluster_id
    if len({member.findings.identity.cluster_id for member in found}) > 1:
        raise Invalid("These are members of different clusters")
    return max(found, key=lambda member: member.findings.newness), secrets.token_hex(16)


def preview(survivor: Stopped, found: Sequence[Stopped]) -> list[str]:
    """What will be, and what is lost."""
    findings = survivor.findings
    others = [row.name for row in survivor.members if row.id != survivor.identity.member_id]
    lines = [f"{survivor.name} ({survivor.root}) goes on alone, with entry {findings.last} as its newest."]
    if findings.begun:
        lines.append("This was begun before and cut short; it will be finished.")
    if findings.last > findings.committed:
        unsure = f"Entries {findings.committed + 1} to {findings.last}"
        lines.append(f"{unsure} may never have been acknowledged; they will count.")
    unseen = [row.name for row in survivor.members if row.id not in {m.identity.member_id for m in found}]
    if unseen:
        lines.append(f"Not looked at: {', '.join(unseen)}. What only they have is lost.")
    if alive := answering(survivor):
        lines.append(f"CAREFUL: something answers at {', '.join(alive)}. Is the majority really lost?")
    if others:
        names = ", ".join(others)
        lines.append(
            f"{names} must not run with the state they have. When {survivor.name} runs: "
            "`lxdpy cluster rejoin` on each that is there, `lxc cluster remove --force` for each that is not."
        )
    return lines


def answering(survivor: Stopped) -> list[str]:
    """Names and addresses of other members at whose address somebody listens."""
    others = [row for row in survivor.members if row.id != survivor.identity.member_id]
    found = {row.name: survivor.address(row.id) for row in others}
    with ThreadPoolExecutor(max(len(found), 1)) as pool:
        ups = list(pool.map(listens, found.values()))
    return [f"{name} ({found[name]})" for name, up in zip(found, ups, strict=True) if up]


def listens(address: str) -> bool:
    try:
        socket.create_connection(parse_address(address), ANSWERS_WITHIN).close()
    except (OSError, Invalid):
        return False
    return True


def make_sole(survivor: Stopped, cluster_id: str) -> None:
    me = survivor.identity.member_id
    alone = msgspec.structs.replace(survivor.identity, cluster_id=cluster_id, voters=(me,), index=0)
    take_over(survivor.log, cluster_id, lambda: identities.save(survivor.root, alone))
