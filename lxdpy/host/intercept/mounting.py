"""`mount` of file systems that the instance's config lists, from block devices that it may use.

The kernel reads what the container has written to the device, with all its rights: that is the power which
the list grants, and why it is empty by default. No more than that: the device is opened by the caller, among
the rules on devices of its control group. It is mounted in a mount namespace of our own where nothing else
can be reached, so that no option leads to a file or device of the host; and nodes in it are dead.
"""

import errno
import os
import stat

from lxdpy.host import mounts
from lxdpy.host.companion.process import Task
from lxdpy.host.intercept import fuse
from lxdpy.host.intercept.caller import CAP_SYS_ADMIN, HERE, Caller
from lxdpy.host.intercept.calls import Arguments, Leave

MAGIC, MAGIC_MASK = 0xC0ED0000, 0xFFFF0000
MS_RDONLY, MS_NODEV = 1, 4
NEW = sum(1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 10, 11, 14, 15, 16, 21, 24, 25))
"""Flags of calls that mount a file system anew; others change, move or bind one that is there."""
HUGE = "hugetlbfs"
BY_NUMBER = ("journal_dev",)  # options that name another device where no path is needed
EXT = ("ext2", "ext3", "ext4")
PLACE = "/.mounted"


def mount(caller: Caller, arguments: Arguments, task: Task) -> int:
    source, target, kind = (caller.string(address) for address in arguments[:3])
    if kind not in {*task["allowed"], *task["fuse"]} or not target:
        raise Leave
    flags = arguments[3]
    if flags & MAGIC_MASK == MAGIC:
        flags &= ~MAGIC_MASK
    if flags & ~NEW:
        raise Leave
    data = caller.string(arguments[4])
    if program := task["fuse"].get(kind):
        caller.demand(CAP_SYS_ADMIN)
        return fuse.mount(caller, fuse.words(program, source, target, flags, data), task)
    data = checked(kind, data)
    start = caller.start_of(HERE)
    caller.demand(CAP_SYS_ADMIN)
    caller.check()
    if kind == HUGE:
        return _huge(caller, (start, target), flags, data, task)
    if not is_on_device(kind):
        raise Leave
    how = os.O_RDONLY if flags & MS_RDONLY else os.O_RDWR

    def find() -> list[int]:
        device = os.open(source, how | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISBLK(os.fstat(device).st_mode):
            raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK))
        return [device, os.open(target, os.O_PATH | os.O_CLOEXEC)]

    device, place = caller.look(start, find, caller.device_group())
    number = os.fstat(device).st_rdev
    os.close(device)
    _alone(task["nodes"])
    path = os.path.normpath(f"/{source}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mknod(path, stat.S_IFBLK | 0o600, number)
    return _give(caller, place, (path, kind, flags, data), task)


def _huge(caller: Caller, place: tuple[int, str], flags: int, data: str, task: Task) -> int:
    """Huge pages; the files are the caller's. Those that say whose they are would mean ids of the host."""
    if "uid=" in data or "gid=" in data:
        raise Leave
    start, target = place
    (found,) = caller.look(start, lambda: [os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)])
    status = caller.status()
    _alone(task["nodes"])
    whose = f"uid={status.uid},gid={status.gid}"
    options = f"{data},{whose}" if data else whose
    return _give(caller, found, (HUGE, HUGE, flags, options), {**task, "shift": False})


def checked(kind: str, data: str) -> str:
    """Options as they may be. Raises EPERM for those that reach beyond the device, or would stop the host."""
    words = [word.strip() for word in data.split(",") if word.strip()]
    names = [word.partition("=")[0] for word in words]
    if any(name in BY_NUMBER for name in names) or "errors=panic" in words:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    if kind in EXT and "errors" not in names:
        words.append("errors=remount-ro")  # as the device itself may ask for a panic
    return ",".join(words)


def is_on_device(kind: str) -> bool:
    """Whether the kernel knows it, and mounts it from block devices."""
    with open("/proc/filesystems") as file:
        return any(line.split() == [kind] for line in file)


def _alone(folder: str) -> None:
    """Be where nothing but an empty file system is, with a place for a mount."""
    mounts.unshare(mounts.CLONE_NEWNS)
    mounts.mount("none", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount("none", folder, "tmpfs")
    os.chroot(folder)
    os.chdir("/")
    os.mkdir(PLACE)


def _give(caller: Caller, place: int, what: tuple[str, str, int, str], task: Task) -> int:
    source, kind, flags, data = what
    mounts.mount(source, PLACE, kind, flags | MS_NODEV, data)
    tree = mounts.open_tree(PLACE)
    if task["shift"]:
        mounts.set_attributes(tree, mounts.MOUNT_ATTR_IDMAP, user_namespace=caller.namespace("user"))
    mounts.set_attributes(tree, 0, propagation=mounts.MS_PRIVATE)
    mounts.unmount(PLACE, lazy=True)
    mounts.setns(caller.namespace("mnt"), mounts.CLONE_NEWNS)
    mounts.attach_to(tree, place)
    return 0
