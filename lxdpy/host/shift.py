"""Owners of files moved from one range of ids to another: what LXD does where it has no mapped mounts.

Here files lie on disk with the container's own ids, so only what comes from elsewhere is shifted.
"""

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

CAPABILITY = "security.capability"
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
REVISION_2, REVISION_3 = 0x02000000, 0x03000000  # of struct vfs_ns_cap_data, linux/capability.h
ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, id; linux/posix_acl_xattr.h
ACL_USER, ACL_GROUP = 0x02, 0x08  # tags of the entries that have an id


class Unmap:
    """From ids on the host to those inside. Entries are LXD's: Isuid, Isgid, Hostid, Nsid, Maprange."""

    def __init__(self, entries: Iterable[Mapping[str, object]]) -> None:
        self._ranges = [
            (
                bool(e["Isuid"]),
                bool(e["Isgid"]),
                int(str(e["Hostid"])),
                int(str(e["Nsid"])),
                int(str(e["Maprange"])),
            )
            for e in entries
        ]

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def uid(self, id: int) -> int:
        return self._inside(id, 0)

    def gid(self, id: int) -> int:
        return self._inside(id, 1)

    def _inside(self, id: int, which: int) -> int:
        """As it is, if no range has it: it is the host's own."""
        for entry in self._ranges:
            if entry[which] and entry[2] <= id < entry[2] + entry[4]:
                return entry[3] + id - entry[2]
        return id


def unshift(top: Path, unmap: Unmap) -> None:
    """Make all below `top`, and itself, the container's own again. Blocks.

    Nobody else may have a hand in the files. Links are not followed; modes stay, and so do capabilities.
    """
    for _, folders, files, folder in os.fwalk(top, follow_symlinks=False):
        for name in (*folders, *files):
            _own(name, folder, unmap)
    parent = os.open(top.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _own(top.name, parent, unmap)
    finally:
        os.close(parent)


def _own(name: str, folder: int, unmap: Unmap) -> None:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    uid, gid = unmap.uid(found.st_uid), unmap.gid(found.st_gid)
    if (uid, gid) == (found.st_uid, found.st_gid):
        return  # also of a hard link that was seen before
    if stat.S_ISLNK(found.st_mode):
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        return
    path = f"/proc/self/fd/{folder}/{name}"
    kept = {key: os.getxattr(path, key, follow_symlinks=False) for key in _listed(path)}
    os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)  # which takes capabilities and setuid away
    os.chmod(path, stat.S_IMODE(found.st_mode))
    for key, value in kept.items():
        os.setxattr(path, key, shifted(key, value, unmap), follow_symlinks=False)


def _listed(path: str) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if key == CAPABILITY or key in ACLS]


def shifted(key: str, value: bytes, unmap: Unmap) -> bytes:
    """The value of an attribute that holds ids, with those inside."""
    if key == CAPABILITY:
        magic = struct.unpack_from("<I", value)[0]
        if magic & 0xFF000000 != REVISION_3:
            return value
        return struct.pack("<I", magic & 0xFF | REVISION_2) + value[4:20]  # without the root's id
    head, entries = value[:4], value[4:]
    inside = {ACL_USER: unmap.uid, ACL_GROUP: unmap.gid}
    return head + b"".join(
        ACL_ENTRY.pack(tag, rights, inside[tag](id) if tag in inside else id)
        for tag, rights, id in ACL_ENTRY.iter_unpack(entries)
    )
