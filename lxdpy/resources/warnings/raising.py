"""How the rest of the program warns: of what happened, or of what is so for now.

    await raise_warning(daemon, AUTOSTART_FAILED, str(failure), entity=url("instances", "c1"))
    await resolve(daemon, AUTOSTART_FAILED, entity=url("instances", "c1"))
    await observe(daemon, GPU_FAILED, {url("gpus", row.uuid): row.reason for row in broken})

All raise what `Store.propose` does; who only warns along the way calls them in a `guarded` task.
"""

import uuid
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from cluster.membership.model import MEMBERS
from lxdpy.resources.warnings.commands import RaiseWarning, ResolveWarnings
from lxdpy.resources.warnings.model import SEVERITIES, WARNINGS, key_of
from lxdpy.resources.wire import project_of
from lxdpy.rest.auth import in_projects

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

Finding = tuple[str, str]  # member id, URL of an entity or ""


async def raise_warning(
    daemon: "Daemon", type_: str, message: str, *, entity: str = "", member: str = ""
) -> None:
    """It happened: each call counts. Of this member, unless another (id) is named."""
    await daemon.store.propose(
        RaiseWarning(
            str(uuid.uuid4()),
            type_,
            member or daemon.member_id,
            message,
            SEVERITIES.get(type_, "low"),
            entity,
            project_of(entity) if in_projects(entity) else "",
        )
    )


async def resolve(daemon: "Daemon", type_: str, *, entity: str = "", member: str = "") -> None:
    """Its cause has ended. Writes nothing if nobody was warned."""
    key = key_of(type_, member or daemon.member_id, entity)
    row = daemon.state.find(WARNINGS, key)
    if row is not None and row.status != "resolved":
        await daemon.store.propose(ResolveWarnings((key,)))


async def observe(daemon: "Daemon", type_: str, found: Mapping[str, str]) -> None:
    """Of this type, exactly this is so on this member now: message by entity. To be told again and again.

    What is new, or has another message, is raised; what was raised and is not found any more is resolved.
    """
    me = daemon.member_id
    await observe_of(daemon, type_, {(me, entity): text for entity, text in found.items()}, (me,))


async def observe_of(
    daemon: "Daemon", type_: str, found: Mapping[Finding, str], members: Collection[str]
) -> None:
    """As `observe`, of all these members (ids), for whom the caller speaks."""
    rows = {
        (row.member, row.entity): row
        for row in daemon.state.rows(WARNINGS).values()
        if row.type == type_ and row.member in members and row.status != "resolved"
    }
    for (member, entity), message in sorted(found.items()):
        row = rows.get((member, entity))
        if (row is None or row.message != message) and daemon.state.find(MEMBERS, member) is not None:
            await raise_warning(daemon, type_, message, entity=entity, member=member)
    if gone := tuple(sorted(row.key for finding, row in rows.items() if finding not in found)):
        await daemon.store.propose(ResolveWarnings(gone))
