"""lxdpy cluster show, list-database, edit: where the members of a stopped cluster are looked for."""

import sys

import click
import msgspec
import yaml

from cluster.address import concrete
from cluster.errors import Invalid
from cluster.membership import identity as identities
from cluster.membership.identity import relocated
from lxdpy.cli.output import as_yaml, note, table
from lxdpy.cli.stopped import Stopped, clustered, stopped
from lxdpy.host.paths import lxd_dir

EXPLAINED = """\
# Where the members are reached. Only addresses can be changed here.
# Give the same to each member, then start all of them.
"""


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member in the text that is edited; `role` is voter or stand-by."""

    id: str
    name: str
    address: str
    role: str


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    members: list[Shown]


@click.command()
def show() -> None:
    """Print what this stopped member knows of the others."""
    with stopped(lxd_dir()) as member:
        found = clustered(member).findings
        click.echo(
            f"# {member.name} has entry {found.last} of term {found.last_term}; its term is {found.term}"
        )
        as_yaml(text_of(member))


@click.command("list-database")
def list_database() -> None:
    """List the members whose votes this stopped member needs."""
    with stopped(lxd_dir()) as member:
        rows = [row for row in text_of(clustered(member)).members if row.role == "voter"]
        table(("NAME", "ADDRESS"), [(row.name, row.address) for row in rows])


@click.command()
def edit() -> None:
    """Tell this stopped member that members have other addresses.

    Opens an editor, or reads what `lxdpy cluster show` prints, changed, from stdin.
    """
    with stopped(lxd_dir()) as member:
        before = text_of(clustered(member))
        if sys.stdin.isatty():
            old = yaml.safe_dump(msgspec.to_builtins(before), sort_keys=False)
            new = click.edit(EXPLAINED + old, extension=".yaml") or old
        else:
            new = sys.stdin.read()
        moved = changes(before, parsed(new))
        if not moved:
            note("Nothing was changed")
            return
        identities.save(member.root, relocated(member.identity, moved))
        for row in before.members:
            if row.id in moved:
                note(f"{row.name}: {row.address} -> {moved[row.id]}")


def text_of(member: Stopped) -> Text:
    voters = member.findings.voters
    return Text(
        [
            Shown(row.id, row.name, member.address(row.id), "voter" if row.id in voters else "stand-by")
            for row in member.members
        ]
    )


def parsed(text: str) -> Text:
    """Raises Invalid."""
    try:
        return msgspec.convert(yaml.safe_load(text), Text)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(f"Not what `lxdpy cluster show` prints: {error}") from None


def changes(before: Text, after: Text) -> dict[str, str]:
    """New addresses by member id. Raises Invalid if anything else was changed. Not so for who votes: that
    moves while members are stopped one after the other, and it may be another member's text.
    """
    old = {row.id: row for row in before.members}
    new = {row.id: row for row in after.members}
    if old.keys() != new.keys() or len(new) < len(after.members):
        raise Invalid("Members can be neither added nor removed here", key="members")
    moved = {}
    for member, row in new.items():
        address = concrete(row.address)
        if row.name != old[member].name:
            raise Invalid(f"Only addresses can be changed here, not the name of {old[member].name}")
        if address != old[member].address:
            moved[member] = address
    taken = [moved.get(member, row.address) for member, row in old.items()]
    if double := sorted({address for address in taken if taken.count(address) > 1}):
        raise Invalid(f"Two members cannot have one address: {double[0]}", key="address", value=double[0])
    return moved
