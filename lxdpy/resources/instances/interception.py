"""System calls that the owner makes for an instance: its process for that is there while it runs."""

from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Invalid, Unsupported
from lxdpy.config.instance import INSTANCE
from lxdpy.host.devices.driver import Attachment
from lxdpy.host.intercept import control
from lxdpy.host.intercept.control import Rules
from lxdpy.host.lxc.seccomp import INTERCEPTED
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Config

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

PREFIX = "security.syscalls.intercept."


def switches_of(config: Config) -> tuple[str, ...]:
    """Which are on; none in a privileged instance, as in LXD: it may do these things itself."""
    if INSTANCE.parsed(config, "security.privileged") is True:
        return ()
    return tuple(name for name in sorted(INTERCEPTED) if INSTANCE.parsed(config, PREFIX + name) is True)


def rules_of(config: Config) -> Rules:
    allowed, fuse = (INSTANCE.parsed(config, f"{PREFIX}mount.{word}") for word in ("allowed", "fuse"))
    return Rules(
        switches_of(config),
        allowed if isinstance(allowed, tuple) else (),
        INSTANCE.parsed(config, f"{PREFIX}mount.shift") is True,
        fuse=fuse if isinstance(fuse, dict) else {},
        devices=INSTANCE.parsed(config, f"{PREFIX}bpf.devices") is True,
    )


def _rules(daemon: "Daemon", row: Instance, config: Config) -> Rules:
    return msgspec.structs.replace(
        rules_of(config),
        groups=daemon.runtime.cgroups.counting(row.volume),
        policy=str(daemon.runtime.paths(row.volume).seccomp),
    )


def check_mounts(config: Config) -> None:
    """Raises Invalid for a file system that is to be mounted in two ways."""
    rules = rules_of(config)
    for name in sorted(rules.fuse.keys() & set(rules.allowed)):
        raise Invalid(
            f"Filesystem {name} cannot appear in {PREFIX}mount.allowed and {PREFIX}mount.fuse",
            key=f"{PREFIX}mount.fuse", value=config[f"{PREFIX}mount.fuse"],
        )  # fmt: skip


def check_groups(rules: Rules) -> None:
    """Raises Unsupported where there is nothing to attach a program to."""
    if "bpf" in rules.switches and rules.devices and "unified" not in rules.groups:
        raise Unsupported(
            f"{PREFIX}bpf.devices: this member has no control groups of version 2 mounted, and programs that "
            "decide on devices are attached to those only",
            key=f"{PREFIX}bpf.devices", value="true",
        )  # fmt: skip


async def prepare(daemon: "Daemon", row: Instance, config: Config) -> Attachment:
    """Have the process there for a container that is about to start."""
    if not switches_of(config):
        return Attachment()
    check_mounts(config)  # which may come from profiles, one each
    paths = daemon.runtime.paths(row.volume)
    lines = control.lines(paths)
    rules = _rules(daemon, row, config)
    check_groups(rules)
    await control.stop(paths)  # one of an earlier start would end with that one's monitor
    await control.ensure(paths, rules, 0)
    return Attachment(lxc=lines)


async def ensure(daemon: "Daemon", row: Instance, config: Config) -> None:
    """Have it for one that runs, with the rules of its config; should it end, it is looked at again.

    Which calls it is asked for the container's start has decided, and whether for any.
    """
    paths = daemon.runtime.paths(row.volume)
    monitor = daemon.runtime.monitor_pid(row.volume)
    if monitor and switches_of(config) and await control.is_asked(paths):
        pid = await control.ensure(paths, _rules(daemon, row, config), monitor)
        daemon.device_watch.watch_process(row.key, pid)


async def follow(daemon: "Daemon", row: Instance, had: Config, wanted: Config) -> None:
    """Let the rules be others from the next call on. A switch put on counts from the next start on."""
    paths = daemon.runtime.paths(row.volume)
    if rules_of(had) != rules_of(wanted) and await control.is_asked(paths):
        await control.change(paths, _rules(daemon, row, wanted))


async def close(daemon: "Daemon", row: Instance) -> None:
    """Its container has ended. Idempotent."""
    await control.stop(daemon.runtime.paths(row.volume))
