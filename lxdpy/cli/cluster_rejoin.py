"""lxdpy cluster rejoin"""

import asyncio
import ssl
from pathlib import Path

import click
import msgspec

from cluster.errors import Error, Forbidden, Invalid, Unavailable
from cluster.membership import identity as identities
from cluster.membership.identity import Identity, Peer
from cluster.tls.certificates import KeyPair
from cluster.tls.contexts import cluster_client
from lxdpy.cli.output import note
from lxdpy.cli.stopped import locked, log_of
from lxdpy.client.client import Client
from lxdpy.host.paths import lxd_dir
from lxdpy.resources.cluster.model import Accepted

ANSWER_WITHIN = 30.0  # seconds: the leader takes a vote away first


@click.command()
@click.argument("address", required=False)
@click.option("--fingerprint", help="Of the cluster's certificate, if it was replaced: `lxc info` shows it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rejoin(address: str | None, fingerprint: str | None, yes: bool) -> None:
    """Let this stopped member follow its cluster from the beginning.

    After the others recovered without it, or when its log cannot be read. Its instances stay. Asks the
    members it knows, or the one at ADDRESS. What its log has and the others have not is lost.
    """
    root = lxd_dir()
    with locked(root):
        before = identities.load(root)
        if before is None or not before.certificate:
            raise Invalid(f"{root}: this server isn't part of a cluster")
        if not yes:
            click.confirm(f"Throw away the log below {log_of(root)}?", abort=True)
        shown = fingerprint or before.certificate
        answer = asyncio.run(ask_any(root, before, address, shown))
        identities.save(root, following(before, answer))
        note("The daemon will follow the cluster when it is started")


async def ask_any(root: Path, identity: Identity, address: str | None, shown: str) -> Accepted:
    """The answer of the first member that gives one, and shows that certificate (PEM or fingerprint). Raises
    Forbidden, Unavailable with what each said.
    """
    keys = KeyPair(root / "server.crt", root / "server.key")
    context = cluster_client(keys, shown)
    own = identity.addresses().get(identity.member_id)
    known = [address] if address else [one for one in identity.addresses().values() if one != own]
    failures = []
    for one in known:
        try:
            return await ask(one, context)
        except Forbidden:
            raise Forbidden(f"{one} does not know this server: it was removed from the cluster") from None
        except Error as failure:
            failures.append(f"{one}: {failure.message}")
    raise Unavailable(f"No member of the cluster answers ({'; '.join(failures)})")


async def ask(address: str, context: ssl.SSLContext) -> Accepted:
    async with Client.remote(address, context, timeout=ANSWER_WITHIN) as client:
        return msgspec.convert(await client.ask("POST", "/internal/1.0/cluster/rejoin"), Accepted)


def following(before: Identity, answer: Accepted) -> Identity:
    """As one that has just joined, but under the id that its instances are known by. The old log goes when
    the daemon starts.
    """
    return msgspec.structs.replace(
        before,
        cluster_id=answer.cluster_id,
        founder=False,
        fresh=True,
        peers={member: Peer(known.address, known.certificate) for member, known in answer.members.items()},
        voters=tuple(answer.voters),
        certificate=answer.certificate,
        certificate_key=answer.certificate_key,
        index=answer.index,
    )
