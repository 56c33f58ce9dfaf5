"""Making instances: checked, placed and recorded by any member; the owner builds what it has applied."""

import math
import random
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cluster.errors import Error, Invalid
from cluster.ids import operation_id
from cluster.membership.model import GROUPS, is_clustered, member_named, name_of
from cluster.scheduler.place import place
from cluster.scheduler.types import Ask, MemberView, Placement
from cluster.state.command import CALLER
from cluster.state.txn import State
from lxdpy.host.network.bridge import random_hwaddr
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances import cloud_init
from lxdpy.resources.instances.checks import check_config, check_devices, root_pool
from lxdpy.resources.instances.claims import ask_of, grants_of, policy_of, views
from lxdpy.resources.instances.commands import CreateInstance, check_name_free
from lxdpy.resources.instances.expand import expand, profiles_of
from lxdpy.resources.instances.model import IDMAP_SLOTS, INSTANCES, Instance, InstancesPost
from lxdpy.resources.instances.names import check_name, pet_name
from lxdpy.resources.instances.origin import Origin, copies, origin_of
from lxdpy.resources.instances.spec import ARCHITECTURES
from lxdpy.resources.instances.templates import DUE
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.storage_volumes.disks import members_with
from lxdpy.resources.wire import only_set, options_set

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

TRIES = 8  # of placing again when another member was faster; each loser sees a newer state than before
_NUMBER = r"[0-9]{1,7}(?:\.[0-9]{1,3})?"
SIZE = re.compile(rf"(?=[cm])(?:c({_NUMBER}))?(?:(?:^|-)m({_NUMBER}))?")
"""`instance_type` in LXD's general form: so many CPUs and GiB. Names of cloud providers' sizes are theirs."""


class Prepared(NamedTuple):
    """An instance that has been checked, and is yet to be placed."""

    row: Instance  # without a location
    ask: Ask
    policy: str
    origin: Origin
    config: Config  # with profiles applied
    target: str  # as it was asked for


Placing = Callable[["Daemon", Prepared], CreateInstance]


async def record(
    daemon: "Daemon",
    body: InstancesPost,
    project: str,
    target: str,
    origin: Origin | None = None,
    placing: Placing | None = None,
) -> Instance:
    """Check, place and record a new instance; its owner then builds it. Returns the row as committed.

    It is made of `origin`, or of what the body names; placed by `placing`, if that is not `placed`.

    Raises Invalid, NotFound, AlreadyExists, or Exhausted with a reason for every member.
    """
    return await recorded(daemon, prepared(daemon, body, project, target, origin), placing)


async def recorded(daemon: "Daemon", draft: Prepared, placing: Placing | None = None) -> Instance:
    """`record` of what has been checked."""

    async def attempt() -> Instance:
        check_name_free(daemon.state, draft.row)
        command = (placing or placed)(daemon, draft)
        state = await daemon.store.propose(command)
        return state.find(INSTANCES, draft.row.key) or command.instance

    return await unless_raced(attempt, TRIES, "each time a place was found")


def prepared(
    daemon: "Daemon", body: InstancesPost, project: str, target: str, origin: Origin | None = None
) -> Prepared:
    """Raises Invalid, NotFound for what is wrong with the request, whatever there is of members and GPUs."""
    origin = origin or origin_of(daemon.state, body.source, project, body.architecture)
    row, config, devices = drafted(daemon, body, project, origin)
    member, group = split_target(daemon.state, target)
    ask = ask_of(config, devices, row.architecture, target=member, group=group)
    ask = msgspec.structs.replace(ask, only=members_with(daemon.state, project, devices))
    return Prepared(row, ask, policy_of(daemon.state, config, group), origin, config, target)


def placed(daemon: "Daemon", draft: Prepared) -> CreateInstance:
    """With the place and the GPUs that the scheduler chooses as things stand."""
    row, origin, state = draft.row, draft.origin, daemon.state
    placement = place_of(state, draft, views(state, daemon.beat.online))
    owner = member_named(state, placement.member)
    instance = msgspec.structs.replace(
        row,
        location=owner.id,
        operation=operation_id(owner.id),
        architecture=row.architecture or owner.architecture or "x86_64",
    )
    snapshots = copies(origin, row.project, row.name)
    return CreateInstance(instance, grants_of(draft.ask, placement), snapshots)


def place_of(state: State, draft: Prepared, members: list[MemberView]) -> Placement:
    """Where what it is made of is, if it can be there and nobody says otherwise. Raises as `place` does."""
    ask, policy, origin = draft.ask, draft.policy, draft.origin
    at_origin = [view for view in members if view.name == name_of(state, origin.member)]
    try:
        return place(ask, at_origin if origin.member and ask.target is None else members, policy)
    except Error:
        return place(ask, members, policy)


def drafted(
    daemon: "Daemon", body: InstancesPost, project: str, origin: Origin
) -> tuple[Instance, Config, Devices]:
    """The row but for its place, and the expanded config and devices, all checked."""
    state = daemon.state
    if body.type not in ("", "container"):
        raise Invalid(f'Instance type "{body.type}" is not supported: container', key="type", value=body.type)
    name = body.name or pet_name({row.name for row in state.rows(INSTANCES).values()})
    check_name(name)
    names = tuple(origin.profiles if body.profiles is None else body.profiles)
    given = only_set({**origin.config, **(body.config or {})})
    local = {key: value for key, value in given.items() if not key.startswith("volatile.")}
    local = size_of(body.instance_type) | local
    check_config(local)
    devices = {**origin.devices, **options_set(body.devices)}
    config, all_devices = expand(profiles_of(state, project, names), local, devices)
    check_devices(daemon, all_devices, project)
    row = Instance(
        project=project,
        name=name,
        uuid=str(uuid.uuid4()),
        location="",
        architecture=architecture_of(body, origin),
        description=body.description,
        devices=devices,
        profiles=names,
        ephemeral=body.ephemeral,
        created_at=time.time(),
        pool=root_pool(state, all_devices),
        idmap=random.randrange(IDMAP_SLOTS),  # noqa: S311 - where to begin looking
        source=origin.source,
        created_by=CALLER.get() or {},
    )
    return (
        msgspec.structs.replace(row, config=local | notes_of(row, origin, all_devices)),
        config,
        all_devices,
    )


def notes_of(row: Instance, origin: Origin, devices: Devices) -> Config:
    """What the daemon writes into the config of a new instance."""
    return {
        **cloud_init.another(),
        **hwaddrs(devices),
        **origin.notes,
        **due(row),
        "volatile.uuid": row.uuid,
    }


def hwaddrs(devices: Devices) -> Config:
    """An address for each NIC that has none of its own: it is known before the first start, as in LXD."""
    return {
        f"volatile.{name}.hwaddr": random_hwaddr(random.SystemRandom())
        for name, options in devices.items()
        if options.get("type") == "nic" and options.get("nictype") != "physical" and not options.get("hwaddr")
    }


def due(row: Instance) -> Config:
    """Which of its image's templates its first start writes."""
    trigger = {"image": "create", "copy": "copy", "migration": "copy"}.get(row.source.type)
    return {DUE: trigger} if trigger else {}


def architecture_of(body: InstancesPost, origin: Origin) -> str:
    """The origin's, as it is what has to run; "" if any will do. Raises Invalid for one that is not known."""
    if body.architecture and body.architecture not in ARCHITECTURES:
        raise Invalid(f"Architecture isn't supported: {body.architecture}", key="architecture")
    return origin.architecture or body.architecture


def size_of(instance_type: str) -> Config:
    """Limits that a size such as `c2-m4`, `c0.5` or `m1` stands for. Raises Invalid for others.

    Of parts of a CPU there is that share of the next whole number, as in LXD.
    """
    if not instance_type:
        return {}
    found = SIZE.fullmatch(instance_type)
    if not found:
        raise Invalid(
            f'Unknown instance type "{instance_type}": a size has the form c<CPUs>-m<GiB of memory>',
            key="instance_type",
            value=instance_type,
        )
    limits = {"limits.memory": f"{float(found[2]) * 1024:.0f}MB"} if found[2] else {}
    if cpus := float(found[1] or 0):
        whole = math.ceil(cpus)
        limits["limits.cpu"] = str(whole)
        if cpus < whole:
            limits["limits.cpu.allowance"] = f"{int(cpus / whole * 100)}%"
    return limits


def split_target(state: State, target: str) -> tuple[str | None, str | None]:
    """Member and group that a `?target=` names. Raises Invalid, NotFound."""
    if not target:
        return None, None
    if not is_clustered(state):
        raise Invalid("Target only allowed when clustered", key="target")
    if target.startswith("@"):
        return None, state.get(GROUPS, target[1:]).name
    return member_named(state, target).name, None
