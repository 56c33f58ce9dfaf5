"""Mounting with maps of ids, and into running containers, by the kernel's newer mount calls.

Functions that say so change the calling process for good (its namespaces or ids): they are for children
that end right after, as those of `lxdpy.host.lxc.helper`, and need a process of one thread. All raise
OSError, with the call's name as its file name. Nothing here is imported late: inside a container's mount
namespace an `import` would read the container's files.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
from collections.abc import Sequence

# include/uapi/linux/{mount,fcntl,sched,prctl}.h; the numbers are those of every architecture since 5.2.
OPEN_TREE, MOVE_MOUNT, OPENAT2, MOUNT_SETATTR = 428, 429, 437, 442
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000
MOUNT_ATTR_ATIME = 0x70  # the bits that say when access times are kept
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_VM = 0x20000, 0x10000000, 0x40000000, 0x100
CLONE_NEWPID = 0x20000000
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10

ATTRIBUTES = {
    "ro": MOUNT_ATTR_RDONLY, "nosuid": MOUNT_ATTR_NOSUID, "nodev": MOUNT_ATTR_NODEV, "noexec": 8,
    "nodiratime": 0x80, "relatime": 0, "noatime": 0x10, "strictatime": 0x20,
}  # fmt: skip
"""Options of mount(8) that a bind mount can have."""
PROPAGATIONS = {"private": MS_PRIVATE, "shared": 1 << 20, "slave": 1 << 19, "unbindable": 1 << 17}
"""With an `r` before it: also of what is mounted below."""

KEPT = 64  # user namespaces
STACK, STACK_ALIGNMENT = 16_384, 16  # bytes, of a process that does one system call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Map = Sequence[Sequence[Sequence[int]]]
"""Lines of uid_map, and of gid_map: first id inside, first on the host, how many. Root inside comes first."""


def open_tree(path: str, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path`, from that folder (or file) down; a descriptor to close."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _syscall(OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)


def set_attributes(
    tree: int, attributes: int, *, propagation: int = 0, user_namespace: int = 0, recursive: bool = False
) -> None:
    """Set MOUNT_ATTR_… and one of PROPAGATIONS (0: as it is) on a detached tree."""
    clear = MOUNT_ATTR_ATIME if attributes & MOUNT_ATTR_ATIME else 0
    argument = struct.pack("QQQQ", attributes, clear, propagation, user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall(MOUNT_SETATTR, tree, b"", flags, argument, len(argument))


def set_options(tree: int, options: Sequence[str], *, recursive: bool) -> None:
    """Words of ATTRIBUTES and PROPAGATIONS on a detached tree; private unless they say otherwise.

    So that no mount made inside a container comes out of it.
    """
    attributes = 0
    propagation, below = MS_PRIVATE, recursive
    for word in options:
        if word in ATTRIBUTES:
            attributes |= ATTRIBUTES[word]
        else:
            below = word not in PROPAGATIONS
            propagation = PROPAGATIONS[word.removeprefix("r") if below else word]
    set_attributes(tree, attributes, recursive=recursive)
    set_attributes(tree, 0, propagation=propagation, recursive=below)


def attach_tree(tree: int, target: str) -> None:
    """Mount a detached tree at `target`, and close it: a descriptor left open keeps the mount in use."""
    try:
        _syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def attach_to(tree: int, place: int) -> None:
    """As `attach_tree`, on what a descriptor stands for, in our own mount namespace."""
    try:
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
        _syscall(MOVE_MOUNT, tree, b"", place, b"", flags)
    finally:
        os.close(tree)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` with `root` (a descriptor) as the root: no link, `..` or magic link leads out of it."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return _syscall(OPENAT2, root, os.fsencode(path), how, len(how))


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check("mount", _libc.mount(*map(os.fsencode, (source, target, kind)), flags, os.fsencode(data)))


def unmount(target: str, *, lazy: bool = False) -> None:
    """Unmount all that is mounted at `target`; fine if nothing is. EBUSY while in use, unless `lazy`."""
    while True:
        try:
            _check(
                "umount", _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0))
            )
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def unshare(kinds: int) -> None:
    """Have namespaces of one's own."""
    _check("unshare", _libc.unshare(kinds))


def setns(namespace: int, kinds: int) -> None:
    """Enter a namespace, or by a pidfd several at once. For a process of one thread."""
    _check("setns", _libc.setns(namespace, kinds))


def is_mounted(target: str) -> bool:
    """Whether something is mounted right there. Unlike os.path.ismount() it sees binds within one device.

    A list of all mounts would do as well, but is long where many containers run.
    """
    path = os.path.realpath(target)
    try:
        return _mount_id(path) != _mount_id(os.path.dirname(path))
    except FileNotFoundError:
        return False


def _mount_id(path: str) -> int:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{handle}") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(handle)


_namespaces: dict[str, int] = {}


def user_namespace(idmap: Map) -> int:
    """A descriptor of a user namespace with this map: what the kernel takes a mount's map from.

    It is kept, for whoever asks in this process or in those forked from it later, and not to be closed.
    """
    key = repr(idmap)
    if key not in _namespaces:
        if len(_namespaces) >= KEPT:
            os.close(_namespaces.pop(next(iter(_namespaces))))
        _namespaces[key] = _new_namespace(idmap)
    return _namespaces[key]


def _new_namespace(idmap: Map) -> int:
    """Of a child that shares our memory, where a fork would copy it, and does nothing but end.

    Until it is waited for, its namespace can be had and given a map.
    """
    stack = ctypes.create_string_buffer(STACK)
    end, top = ctypes.cast(_libc._exit, ctypes.c_void_p), ctypes.addressof(stack) + STACK
    flags = CLONE_VM | CLONE_NEWUSER | signal.SIGCHLD
    child = _check("clone", _libc.clone(end, ctypes.c_void_p(top & -STACK_ALIGNMENT), flags, None))
    try:
        for file, lines in zip(("uid_map", "gid_map"), idmap, strict=True):
            text = "".join(f"{inside} {host} {length}\n" for inside, host, length in lines)
            handle = os.open(f"/proc/{child}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.waitpid(child, 0)


def mapped_tree(source: str, namespace: int, *, readonly: bool = False, recursive: bool = False) -> int:
    """A detached copy of `source` seen through the map of a user namespace (0: unmapped)."""
    tree = open_tree(source, recursive=recursive)
    try:
        if namespace:
            set_attributes(tree, MOUNT_ATTR_IDMAP, user_namespace=namespace, recursive=recursive)
        if readonly:
            set_attributes(tree, MOUNT_ATTR_RDONLY, recursive=recursive)
    except OSError:
        os.close(tree)
        raise
    return tree


def mount_mapped(source: str, target: str, idmap: Map | None, *, readonly: bool = False) -> None:
    """Mount `source` also at `target`, with ids mapped; fine if that was done before."""
    if is_mounted(target):
        return
    namespace = user_namespace(idmap) if idmap else 0
    attach_tree(mapped_tree(source, namespace, readonly=readonly), target)


def mount_overlay(lower: Sequence[str], upper_work: str, target: str, idmap: Map | None) -> None:
    """Mount an overlay at `target`: `lower` folders (topmost first), changes kept in `upper_work`/upper.

    Fine if that was done before. It changes the process for good, but only if it fails. The kernel maps no
    overlay, but an overlay of mapped layers: they are put together in a private mount namespace, so a crash
    leaves nothing behind. The overlay writes to its upper layer as who mounted it; root of the host has no id
    in a mapped layer (it would silently be read-only), so the mounter's file system ids are those of the
    container's root.
    """
    if is_mounted(target):
        return
    for name in ("upper", "work"):
        _make_like(os.path.join(upper_work, name), lower[0])
    namespace = user_namespace(idmap) if idmap else 0
    layers = [mapped_tree(path, namespace) for path in (*lower, upper_work)]
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    _check("unshare", _libc.unshare(CLONE_NEWNS))
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", target, "tmpfs")
    os.chdir(target)
    for index, layer in enumerate(layers):
        os.mkdir(str(index))
        attach_tree(layer, str(index))
    os.mkdir("merged")
    if idmap:
        _check("prctl", _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        users, groups = idmap
        _libc.setfsgid(groups[0][1])
        _libc.setfsuid(users[0][1])
    last = len(lower)
    below = ":".join(str(index) for index in range(last))
    # Without an index an upper layer may be copied: it would name the inodes of the original.
    options = f"lowerdir={below},upperdir={last}/upper,workdir={last}/work,index=off"
    mount("overlay", "merged", "overlay", 0, options)
    _libc.setfsuid(0)
    _libc.setfsgid(0)
    merged = open_tree("merged")
    setns(home, CLONE_NEWNS)
    os.close(home)
    attach_tree(merged, target)


def _make_like(folder: str, model: str) -> None:
    """The root of an overlay shows the upper folder's mode and owner: they must be the image's."""
    if not os.path.isdir(folder):
        like = os.stat(model)
        os.makedirs(folder)
        os.chown(folder, like.st_uid, like.st_gid)
        os.chmod(folder, stat.S_IMODE(like.st_mode))


def inject(
    init: int,
    source: str,
    target: str,
    *,
    mapped: bool,
    readonly: bool,
    recursive: bool,
    options: Sequence[str] = (),
) -> None:
    """Mount a file, node or folder of the host into the container whose first process is `init` (a pidfd).

    `mapped`: ids on disk are the container's own; `options`: as of `set_options`. The target is made if it is
    not there; links in it lead nowhere but within the container. Changes the process for good.
    """
    namespace = _enter_later(init)
    tree = mapped_tree(source, namespace if mapped else 0, readonly=readonly, recursive=recursive)
    set_options(tree, options, recursive=recursive)
    folder = stat.S_ISDIR(os.stat(source).st_mode)
    _enter(init, namespace)
    if folder:
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.lexists(target):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    attach_tree(tree, target)


def eject(init: int, target: str) -> None:
    """Take back an `inject`, and the empty target; fine if it is gone. Changes the process for good."""
    _enter(init, _enter_later(init))
    unmount(target, lazy=True)
    try:
        os.unlink(target)
    except IsADirectoryError:
        try:
            os.rmdir(target)
        except OSError:
            return  # the container had files there before
    except FileNotFoundError:
        return


def enter(init: int, *, network: bool = False) -> None:
    """Become root of the container whose first process is `init`: its mounts, its ids, no group of the host.

    Changes the process for good; it stays in the host's other namespaces (but for the network's, on demand),
    so nothing inside sees it.
    """
    _enter(init, _enter_later(init), CLONE_NEWNET if network else 0)
    os.setgroups([])


def enter_folder(root: int) -> None:
    """Have a folder (a descriptor) as the root, and nothing else in reach. Changes the process for good."""
    os.fchdir(root)
    os.chroot(".")
    os.setgroups([])


def _enter_later(init: int) -> int:
    """The user namespace of a process, 0 if it is ours (a privileged container)."""
    with open(f"/proc/self/fdinfo/{init}") as lines:
        pid = next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
    namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    signal.pidfd_send_signal(init, 0)  # it lives: `pid` was its number, no other's
    if os.fstat(namespace).st_ino == os.stat("/proc/self/ns/user").st_ino:
        os.close(namespace)
        return 0
    return namespace


def _enter(init: int, namespace: int, others: int = 0) -> None:
    setns(init, CLONE_NEWNS | (CLONE_NEWUSER if namespace else 0) | others)
    if namespace:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def _syscall(number: int, *arguments: object) -> int:
    return _check(_NAMES[number], _libc.syscall(number, *arguments))


_NAMES = {
    OPEN_TREE: "open_tree",
    MOVE_MOUNT: "move_mount",
    OPENAT2: "openat2",
    MOUNT_SETATTR: "mount_setattr",
}


def _check(call: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)
    return result
