"""Config keys of instances, and so of profiles: LXD 5.0's for containers, and our own for GPUs."""

import re

from cluster.scheduler.match import parse as gpu_match  # the one reader of that language, pure as we are
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.types import (
    boolean,
    cpu_allowance,
    cpu_set,
    cron,
    duration,
    either,
    expiry,
    integer,
    list_of,
    matching,
    memory_limit,
    one_of,
    size,
    snapshot_pattern,
    yaml_mapping,
)

PRIORITY = integer(0, 10)
SYSCALLS = matching(r"[^\x00]+", "a list of system calls, one a line")
FILE_SYSTEM = matching(r"[a-z0-9_.-]{1,32}", "the name of a file system")
FUSE = re.compile(r"(?P<kind>[a-z0-9_.-]{1,32})=(?P<program>/?[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*)")
MODULE = matching(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", "the name of a kernel module")
RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
RLIMIT = matching(
    r"(?:\d{1,20}|unlimited)(?::(?:\d{1,20}|unlimited))?", "a limit (1024, unlimited) or two (1024:4096)"
)
CAPABILITY = "all|compute|compat32|display|graphics|utility|video"
CAPABILITIES = matching(
    rf"(?:{CAPABILITY})(?:,(?:{CAPABILITY}))*", f"a list (by ',') of {CAPABILITY.replace('|', ', ')}"
)
REQUIREMENT = matching(r"[A-Za-z0-9.,<>=!_ -]{1,200}", "a condition such as >=12.0, on one line")
_IDS = r"[0-9]{1,10}(?:-[0-9]{1,10})?"


def raw_idmap(value: str) -> tuple[str, ...]:
    """Lines of `both|uid|gid <host ids> <container ids>`, where ids are one number or a range."""
    lines = tuple(line.strip() for line in value.splitlines() if line.strip())
    if not all(re.fullmatch(rf"(?:both|uid|gid)\s+{_IDS}\s+{_IDS}", line) for line in lines):
        raise ValueError("a list of id maps, one a line, such as `both 1000 1000`")
    return lines


def fuse_programs(value: str) -> dict[str, str]:
    """Programs by the file system that they mount."""
    found = [FUSE.fullmatch(word.strip()) for word in value.split(",")]
    kinds = {one["kind"]: one["program"] for one in found if one}
    if len(kinds) != len(found):
        raise ValueError("a list (by ',') of file systems, each once and with its program, as `ext4=fuse2fs`")
    return kinds


BOOT = (
    Key(name="boot.autostart", parse=boolean,
        doc="Start the instance when its member starts; unset goes back to what it was doing."),
    Key(name="boot.autostart.delay", parse=integer(0, 86400), default="0",
        doc="Seconds to wait after starting this one before starting the next."),
    Key(name="boot.autostart.priority", parse=integer(-1000, 1000), default="0",
        doc="Order of starting; the highest goes first."),
    Key(name="boot.host_shutdown_timeout", parse=integer(0, 86400), default="30", live=True,
        doc="Seconds the instance gets to shut down by itself when its member stops."),
    Key(name="boot.stop.priority", parse=integer(-1000, 1000), default="0",
        doc="Order of stopping; the highest goes first."),
    Key(name="cluster.evacuate", parse=one_of("auto", "migrate", "live-migrate", "stop"),
        default="auto",
        doc="What an evacuation of its member does with it: move it, stop it, or decide by its devices."),
)  # fmt: skip

FREE_FORM = (
    Key(name="environment.*", parse=matching(r"[^\r\n]+", "on one line"), live=True,
        doc="An environment variable, set at start and for every command run inside."),
    Key(name="image.*", doc="A property copied from the image the instance was made of."),
    Key(name="linux.kernel_modules", parse=list_of(MODULE), live=True,
        doc="Kernel modules, by commas, that its member must have loaded before it starts."),
    Key(name="linux.sysctl.*", doc="A sysctl to set inside the instance's namespaces."),
    Key(name="user.*", doc="Anything you like; images may read `user.*` through the guest API."),
    Key(name="volatile.*", doc="The daemon's own notes on the instance; not for setting by hand."),
    Key(name="cloud-init.network-config", parse=yaml_mapping, needs="an image with cloud-init",
        doc="Network configuration handed to cloud-init."),
    Key(name="cloud-init.user-data", needs="an image with cloud-init", doc="User data for cloud-init."),
    Key(name="cloud-init.vendor-data", needs="an image with cloud-init", doc="Vendor data for cloud-init."),
)  # fmt: skip

LIMITS = (
    Key(name="limits.cpu", parse=cpu_set, live=True,
        doc="How many CPUs the instance may use (`4`), or which ones (`0-3,8`); unset for all."),
    Key(name="limits.cpu.allowance", parse=cpu_allowance, default="100%", live=True,
        doc="Share of CPU time under contention (`50%`), or a hard slice of it (`25ms/100ms`)."),
    Key(name="limits.cpu.priority", parse=PRIORITY, default="10", live=True,
        doc="Who goes first when instances with the same share compete for CPU; 10 is highest."),
    Key(name="limits.disk.priority", parse=PRIORITY, default="5", live=True,
        doc="Weight of its requests at disks whose scheduler weighs them (bfq, say); 10 is highest."),
    Key(name="limits.hugepages.64KB", parse=size, live=True, doc="Most memory in 64 KB huge pages."),
    Key(name="limits.hugepages.1MB", parse=size, live=True, doc="Most memory in 1 MB huge pages."),
    Key(name="limits.hugepages.2MB", parse=size, live=True, doc="Most memory in 2 MB huge pages."),
    Key(name="limits.hugepages.1GB", parse=size, live=True, doc="Most memory in 1 GB huge pages."),
    *(Key(name=f"limits.kernel.{limit}", parse=RLIMIT, doc=f"RLIMIT_{limit.upper()} of its first process.")
      for limit in RLIMITS),
    Key(name="limits.memory", parse=memory_limit, live=True,
        doc="Most memory the instance may use, as a size or a share of its member's; unset for no limit."),
    Key(name="limits.memory.enforce", parse=one_of("hard", "soft"), default="hard", live=True,
        doc="Whether `limits.memory` always binds, or (`soft`) only when the member runs short."),
    Key(name="limits.memory.swap", parse=boolean, default="true", live=True,
        doc="Whether the instance's memory may be swapped out."),
    Key(name="limits.memory.swap.priority", parse=PRIORITY, default="10", live=True,
        doc="How little it is spared from swapping, under control groups v1; 10 is as others are."),
    Key(name="limits.network.priority", parse=PRIORITY, default="0", live=True,
        doc="How soon queues of its member serve what it sends, by NICs with an end there; 0 as others."),
    Key(name="limits.processes", parse=integer(1), live=True,
        doc="Most processes and threads the instance may have; unset for no limit."),
)  # fmt: skip

GPU = (
    Key(name="limits.gpu", parse=integer(0, 64),
        doc="How many GPUs the instance needs; it is placed on a member that has them free."),
    Key(name="gpu.match", parse=gpu_match, needs="limits.gpu",
        doc="What each GPU must be: conditions by blanks, as in `vendor=nvidia model~A100 memory>=40GiB`."),
    Key(name="gpu.sharing", parse=one_of("exclusive", "shared"), default="exclusive", needs="limits.gpu",
        doc="Whether it holds its GPUs alone, or beside other instances that share."),
    Key(name="gpu.memory", parse=size, needs="gpu.sharing=shared",
        doc="GPU memory to reserve on each shared GPU."),
    Key(name="gpu.wait", parse=duration, needs="GPUs",
        doc="How long a create, start or unpark may wait for GPUs (`10m`; `-1` for ever); unset: no time."),
    Key(name="gpu.priority", parse=integer(-100, 100), default="0", needs="gpu.wait",
        doc="Its place among those that queue for GPUs: the higher, the earlier; equals by arrival."),
    Key(name="gpu.idle", parse=duration, live=True,
        doc="How long its GPUs may do nothing (`30m`) until they are given back, as by `lxdpy gpu park -f`."),
    Key(name="gpu.lease", parse=duration, live=True,
        doc="How long it may have its GPUs (`8h`) until they are given back; `lxdpy gpu renew` begins anew."),
    Key(name="gpu.hold", parse=one_of("running", "always"), default="running", needs="GPUs",
        doc="Whether its GPUs are given back when it stops, or kept (`always`) until it is deleted."),
    Key(name="gpu.policy", parse=one_of("spread", "pack", "spare-gpus"), needs="GPUs",
        doc="How to choose among members that fit; unset takes the server's `gpu.policy`."),
    Key(name="nvidia.driver.capabilities", parse=CAPABILITIES, default="compute,utility",
        doc="Which parts of the NVIDIA driver the instance gets, by commas."),
    Key(name="nvidia.require.cuda", parse=REQUIREMENT, doc="CUDA versions it will run with, as `>=12.0`."),
    Key(name="nvidia.require.driver", parse=REQUIREMENT, doc="Driver versions it will run with, as `>=550`."),
    Key(name="nvidia.runtime", parse=boolean, default="false",
        doc="Hand the host's NVIDIA libraries and tools into the instance."),
)  # fmt: skip

SECURITY = (
    Key(name="migration.incremental.memory", parse=boolean, default="false", live=True,
        doc="Taken for LXD's clients, without effect: what moves is stopped first, as there is no CRIU."),
    Key(name="migration.incremental.memory.goal", parse=integer(0, 100), default="70", live=True,
        doc="Without effect, as `migration.incremental.memory`."),
    Key(name="migration.incremental.memory.iterations", parse=integer(1, 1000), default="10", live=True,
        doc="Without effect, as `migration.incremental.memory`."),
    Key(name="raw.apparmor", live=True, doc="Lines to add to its AppArmor profile."),
    Key(name="raw.idmap", parse=raw_idmap,
        doc="Host ids to let through unshifted: lines of `both|uid|gid <host ids> <ids inside>`."),
    Key(name="raw.lxc", doc="Lines to add to its LXC configuration."),
    Key(name="raw.seccomp", doc="A whole seccomp policy in place of the generated one."),
    Key(name="security.devlxd", parse=boolean, default="true", live=True,
        doc="Whether the guest API is there, as `/dev/lxd/sock`."),
    Key(name="security.devlxd.images", parse=boolean, default="false", live=True,
        doc="Whether the guest API also hands out images of the member."),
    Key(name="security.idmap.base", parse=integer(1_000_000, 2**32 - 3), needs="security.idmap.isolated=true",
        doc="First host id of an isolated map, from its next start on; unset picks one."),
    Key(name="security.idmap.isolated", parse=boolean, default="false",
        doc="Whether `security.idmap.base` and `.size` count; no two instances share ids in any case."),
    Key(name="security.idmap.size", parse=integer(1, 2**32 - 3 - 1_000_000), default="65536",
        needs="security.idmap.isolated=true",
        doc="How many ids an isolated map has, from its next start on."),
    Key(name="security.nesting", parse=boolean, default="false", live=True,
        doc="Let it run containers of its own."),
    Key(name="security.privileged", parse=boolean, default="false",
        doc="Run without a user namespace: root inside is then root outside."),
    Key(name="security.protection.delete", parse=boolean, default="false", live=True,
        doc="Refuse to delete the instance until this is off again."),
    Key(name="security.protection.shift", parse=boolean, default="false", live=True,
        doc="Always so here: mounts map the ids, and no owner of a file is rewritten for another map."),
    Key(name="security.syscalls.allow", parse=SYSCALLS,
        doc="The only system calls it may make, one a line; replaces both deny lists."),
    Key(name="security.syscalls.deny", parse=SYSCALLS, doc="More system calls to refuse, one a line."),
    Key(name="security.syscalls.deny_compat", parse=boolean, default="false",
        doc="Refuse the system calls of 32-bit programs."),
    Key(name="security.syscalls.deny_default", parse=boolean, default="true",
        doc="Refuse the system calls that no container should make."),
    Key(name="security.syscalls.blacklist", parse=SYSCALLS, doc="Old name of `security.syscalls.deny`."),
    Key(name="security.syscalls.blacklist_compat", parse=boolean,
        doc="Old name of `security.syscalls.deny_compat`."),
    Key(name="security.syscalls.blacklist_default", parse=boolean,
        doc="Old name of `security.syscalls.deny_default`."),
    Key(name="security.syscalls.whitelist", parse=SYSCALLS, doc="Old name of `security.syscalls.allow`."),
    Key(name="security.syscalls.intercept.bpf", parse=boolean, default="false",
        doc="Make the `bpf` calls for it that `.devices` lets through."),
    Key(name="security.syscalls.intercept.bpf.devices", parse=boolean, default="false",
        live=True, needs="security.syscalls.intercept.bpf=true",
        doc="Let its root load programs that refuse devices, and attach them to control groups of its own."),
    Key(name="security.syscalls.intercept.mknod", parse=boolean, default="false",
        doc="Make harmless device nodes for it (null, zero, full, random, urandom, tty, console)."),
    Key(name="security.syscalls.intercept.mount", parse=boolean, default="false",
        doc="Mount the file systems of `.allowed` for it."),
    Key(name="security.syscalls.intercept.mount.allowed", parse=list_of(FILE_SYSTEM), live=True,
        needs="security.syscalls.intercept.mount=true",
        doc="File systems, by commas, it may mount from block devices that it has, and hugetlbfs; the host's "
            "kernel then reads what it wrote there. Others are left to its own rights."),
    Key(name="security.syscalls.intercept.mount.fuse", parse=fuse_programs, live=True,
        needs="security.syscalls.intercept.mount=true",
        doc="File systems, by commas, that a FUSE program of its own is to mount, as `ext4=fuse2fs`."),
    Key(name="security.syscalls.intercept.mount.shift", parse=boolean, default="false", live=True,
        doc="Show the owners in a mounted file system as the instance's own ids."),
    Key(name="security.syscalls.intercept.sched_setscheduler", parse=boolean, default="false",
        doc="Let its root set any scheduling policy and priority, real-time too; where the kernel shares "
            "out real-time by control groups, its own must have been given some."),
    Key(name="security.syscalls.intercept.setxattr", parse=boolean, default="false",
        doc="Set the mark of opaque folders for it, which overlays in it need."),
    Key(name="security.syscalls.intercept.sysinfo", parse=boolean, default="false",
        doc="Answer `sysinfo` with the instance's own memory, swap, threads and age."),
)  # fmt: skip

SNAPSHOTS = (
    Key(name="snapshots.expiry", parse=expiry,
        doc="How long scheduled and unnamed snapshots are kept, as `1w` or `2d 12H`; unset for ever."),
    Key(name="snapshots.pattern", parse=snapshot_pattern, default="snap%d",
        doc="Name of unnamed snapshots; `%d` counts, `{{ creation_date|date:'2006-01-02' }}` is a date."),
    Key(name="snapshots.schedule", parse=either(one_of("@never"), cron),
        doc="When to take snapshots, in UTC: five cron fields, or `@daily` and its like."),
    Key(name="snapshots.schedule.stopped", parse=boolean, default="false",
        doc="Whether a stopped instance is snapshot by schedule too."),
)  # fmt: skip

INSTANCE = KeyTable("instance", [*BOOT, *FREE_FORM, *LIMITS, *GPU, *SECURITY, *SNAPSHOTS])
