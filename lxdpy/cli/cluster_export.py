"""lxdpy cluster export, import: the whole state as text, and a server that begins with it."""

import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from cluster.address import concrete
from cluster.errors import Conflict, Invalid
from cluster.membership import identity as identities
from cluster.membership.certificates import pem_of
from cluster.membership.features import FEATURES, level_of
from cluster.membership.identity import Identity, Peer
from cluster.membership.model import MEMBERS, Member, is_clustered, member_named, members, the_cluster
from cluster.raft.journal import Identity as Owner
from cluster.raft.recover import found
from cluster.state.export import Plain, exported, imported
from cluster.state.table import Table
from cluster.state.txn import Rows, State
from cluster.tls.certificates import KeyPair, ensure
from lxdpy.cli.output import note
from lxdpy.cli.stopped import Stopped, locked, log_of, look, stopped
from lxdpy.host import safe_yaml
from lxdpy.host.paths import lxd_dir
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.server.model import SETTINGS, Setting, member_setting
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.tables import TABLES, new_machine

HEAD = "# All that the cluster agrees on. Keys and hashes of secrets are in it: keep it safe.\n"
LISTEN = ("core.https_address", "cluster.https_address")
OF_ITS_OWN: tuple[Table[Any], ...] = (INSTANCES, IMAGES, POOLS, NETWORKS)


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """The file. `level` is the feature level its rows need; index and term are of the newest entry."""

    level: int
    cluster: str
    member: str  # whose state it is: name
    exported_at: str
    index: int
    term: int
    tables: Plain


class _Dumper(safe_yaml.Dumper):
    """Certificates on lines of their own."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value.rstrip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


@click.command()
@click.argument("target", required=False, type=click.Path(path_type=Path))
def export(target: Path | None) -> None:
    """Write the state that this stopped member has as YAML, to TARGET or stdout.

    It has all secrets of the cluster in it.
    """
    with stopped(lxd_dir()) as member:
        written = HEAD + yaml.dump(
            msgspec.to_builtins(text_of(member)), Dumper=_Dumper, sort_keys=False, allow_unicode=True
        )
    if target is None:
        click.echo(written, nl=False)
        return
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(written)


def text_of(member: Stopped) -> Text:
    return Text(
        level=level_of(member.state),
        cluster=member.findings.identity.cluster_id,
        member=member.name,
        exported_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        index=member.findings.last,
        term=member.findings.last_term,
        tables=exported(member.state),
    )


@click.command("import")
@click.argument("source", type=click.File())
@click.option("--as", "name", help="Which member this server is from now on; by default whose state it is.")
@click.option("--address", help="Where this server is reached, if not where that member was.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def import_(source: Any, name: str | None, address: str | None, yes: bool) -> None:
    """Begin with an exported state, as a cluster of one. This server must be stopped and have nothing.

    The other members stay in the list, offline. Instances and images are known, but what was in them is not
    in the file: put storage back before the daemon is started.
    """
    root, text = lxd_dir(), parsed(source.read())
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    with locked(root):
        check_fresh(root)
        tables = dict(imported(TABLES, text.tables))
        row = chosen(State(text.index, tables), name or text.member)
        note(f"This server becomes {row.name}, with the state of {text.exported_at}, entry {text.index}.")
        if not yes:
            click.confirm("Replace what it has now?", abort=True)
        keys = ensure(root, "server", [socket.gethostname()])
        begin(root, State(text.index, settled(tables, row, keys, address)), row.id, text.term)
        note(f"{row.name} is a cluster of its own now: start its daemon")


def parsed(text: str) -> Text:
    """Raises Invalid."""
    try:
        found = msgspec.convert(safe_yaml.load(text), Text)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(f"Not what `lxdpy cluster export` writes: {error}") from None
    if found.level > FEATURES:
        raise Invalid(f"The state is of feature level {found.level}, this version has {FEATURES}: update it")
    return found


def check_fresh(root: Path) -> None:
    """Raises Conflict unless this server has nothing that would be lost."""
    if not (log_of(root) / "journal").exists():
        return
    state = look(root).state
    own = next((table.name for table in OF_ITS_OWN if state.rows(table)), "")
    if own or is_clustered(state):
        what = own.replace("_", " ") or "a cluster"
        raise Conflict(f"{root} has {what} of its own: only a fresh server can begin anew")


def chosen(state: State, name: str) -> Member:
    """Raises Invalid."""
    names = [row.name for row in members(state)]
    if name not in names:
        raise Invalid(f"No member {name!r} in the state: --as one of {', '.join(names)}", name=name)
    return member_named(state, name)


def settled(tables: dict[str, Rows], row: Member, keys: KeyPair, address: str | None) -> dict[str, Rows]:
    """The rows as they are true of this server: its certificate, and its address where the old one stood."""
    own = {"certificate": keys.pem(), "fingerprint": keys.fingerprint()}
    new = msgspec.structs.replace(row, next_certificate="", next_fingerprint="", **own)
    settings = dict(tables.get(SETTINGS.name, {}))
    if address is not None:
        new = msgspec.structs.replace(new, address=concrete(address))
        for key in LISTEN:
            if member_setting(State(0, tables), row.id, key) == row.address:
                settings[f"{row.id}/{key}"] = Setting(new.address)
    rows = {**tables[MEMBERS.name], row.id: new}
    return {**tables, MEMBERS.name: rows, SETTINGS.name: settings}


def begin(root: Path, state: State, me: str, term: int) -> None:
    """Put the state in place of the server's own. Repeated after a crash, it is done anew."""
    cluster = the_cluster(state)
    identity = Identity(
        cluster_id=secrets.token_hex(16),
        member_id=me,
        listen=member_setting(state, me, LISTEN[0]),
        cluster_listen=member_setting(state, me, LISTEN[1]),
        peers={row.id: Peer(row.address, pem_of(row)) for row in members(state)},
        voters=(me,),
        certificate=cluster.certificate,
        certificate_key=cluster.certificate_key,
    )
    found(
        log_of(root),
        Owner(identity.cluster_id, me),
        new_machine().dump_chunks(state),
        (max(state.index, 2), max(term, 1)),
        lambda: identities.save(root, identity),
    )
