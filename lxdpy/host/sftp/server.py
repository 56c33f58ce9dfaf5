"""The server's side: one client on a stream socket, in a process of its own. It blocks, and has no limits but
the kernel's.

Only regular files are opened: a pipe could keep the process for ever, and to open a device is to act on it.
"""

import errno
import itertools
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from lxdpy.host.sftp import words
from lxdpy.host.sftp.words import Attributes, Malformed, Parts, number, packet, text

ENTRIES = 100  # of a directory in one packet
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # of what is made without saying so
HANDLES = 1024  # open at one time
MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
EXTENSIONS = {
    b"posix-rename@openssh.com": b"1",
    b"hardlink@openssh.com": b"1",
    b"statvfs@openssh.com": b"2",
    b"fsync@openssh.com": b"1",
}

Folder = Iterator[bytes]
Handle = int | tuple[bytes, Folder]
"""An open file; or a directory's path, and the names that were not told yet."""


class Server:
    """Serves from the root of this process."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._handles: dict[bytes, Handle] = {}
        self._numbers = itertools.count(1)
        self._works: dict[int, Callable[[Parts], bytes | None]] = {
            words.OPEN: self._open, words.CLOSE: self._close,
            words.WRITE: self._write, words.LSTAT: lambda p: _told(os.lstat(p.text())),
            words.STAT: lambda p: _told(os.stat(p.text())),
            words.FSTAT: lambda p: _told(os.fstat(self._file(p))),
            words.SETSTAT: lambda p: _change(p.text(), p.attributes()),
            words.FSETSTAT: lambda p: _change(self._file(p), p.attributes()),
            words.OPENDIR: self._opendir, words.READDIR: self._readdir,
            words.REMOVE: lambda p: os.unlink(p.text()),
            words.MKDIR: _mkdir, words.RMDIR: lambda p: os.rmdir(p.text()),
            words.REALPATH: lambda p: _names([(os.path.realpath(p.text() or b"/"), b"", Attributes())]),
            words.RENAME: _rename,
            words.READLINK: lambda p: _names([(os.readlink(p.text()), b"", Attributes())]),
            # The target comes first, in OpenSSH and so in everybody's version of the protocol.
            words.SYMLINK: lambda p: os.symlink(p.text(), p.text()),
            words.EXTENDED: self._extended,
        }  # fmt: skip

    def serve(self) -> None:
        """Until the client is gone, or sends what is no packet."""
        with self._client.makefile("rb", buffering=words.LIMIT) as requests:
            while head := requests.read(4):
                size = int.from_bytes(head)
                body = requests.read(size) if size <= words.LIMIT else b""
                if not body or len(body) < size:
                    return
                head, data = self._answer(Parts(body))
                self._client.sendall(head)
                if data:
                    self._client.sendall(data)

    def _answer(self, parts: Parts) -> tuple[bytes, bytes]:
        """A packet; of one with a file's data, these apart, as they are large."""
        kind = parts.byte()
        if kind == words.INIT:
            told = (text(name) + text(version) for name, version in EXTENSIONS.items())
            return packet(words.VERSION_REPLY, number(words.VERSION), *told), b""
        id = b"\0" * 4
        try:
            id = bytes(parts.take(4))
            if kind == words.READ:
                data = self._read(parts)
                return packet(words.DATA, id, data=data), data
            work = self._works.get(kind)
            reply = work(parts) if work else _refused(words.OP_UNSUPPORTED, "not supported")
            reply = reply or _refused(words.OK, "")
        except OSError as error:
            reply = bytes((words.STATUS,)) + words.status_of(error)
        except EOFError as error:
            reply = _refused(words.EOF, str(error))
        except Malformed:
            reply = _refused(words.BAD_MESSAGE, "bad message")
        except (ValueError, OverflowError):  # a path with a null byte, a number that is no id
            reply = bytes((words.STATUS,)) + words.status_of(_os_error(errno.EINVAL))
        return packet(reply[0], id, reply[1:]), b""

    def _open(self, parts: Parts) -> bytes:
        path, flags, wanted = parts.text(), parts.number(), parts.attributes()
        how = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        reads, writes = flags & words.FLAG_READ, flags & words.FLAG_WRITE
        how |= os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY
        for flag, meaning in (
            (words.FLAG_APPEND, os.O_APPEND), (words.FLAG_CREATE, os.O_CREAT),
            (words.FLAG_TRUNCATE, os.O_TRUNC), (words.FLAG_EXCLUSIVE, os.O_EXCL),
        ):  # fmt: skip
            how |= meaning if flags & flag else 0
        try:
            _check_file(os.stat(path))
        except FileNotFoundError:
            if not how & os.O_CREAT:
                raise
        mode = FILE_MODE if wanted.mode is None else stat.S_IMODE(wanted.mode)
        file = os.open(path, how, mode)
        try:
            _check_file(os.fstat(file))
            return self._handle(file)
        except OSError:
            os.close(file)
            raise

    def _opendir(self, parts: Parts) -> bytes:
        path = parts.text()
        return self._handle((path, iter([b".", b"..", *os.listdir(path)])))

    def _handle(self, handle: Handle) -> bytes:
        if len(self._handles) >= HANDLES:
            raise _os_error(errno.EMFILE)
        name = number(next(self._numbers))
        self._handles[name] = handle
        return bytes((words.HANDLE,)) + text(name)

    def _file(self, parts: Parts) -> int:
        found = self._handles.get(parts.text())
        if not isinstance(found, int):
            raise _os_error(errno.EBADF)
        return found

    def _close(self, parts: Parts) -> None:
        handle = self._handles.pop(parts.text(), None)
        if handle is None:
            raise _os_error(errno.EBADF)
        if isinstance(handle, int):
            os.close(handle)

    def _read(self, parts: Parts) -> bytes:
        file, offset, size = self._file(parts), parts.long(), parts.number()
        data = os.pread(file, min(size, words.PART), offset)
        if not data and size:
            raise EOFError("end of file")
        return data

    def _write(self, parts: Parts) -> None:
        file, offset, data = self._file(parts), parts.long(), parts.data()
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written

    def _readdir(self, parts: Parts) -> bytes:
        found = self._handles.get(parts.text())
        if not isinstance(found, tuple):
            raise _os_error(errno.EBADF)
        path, names = found
        entries = []
        for name in itertools.islice(names, ENTRIES):
            try:
                status = os.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue
            entries.append((name, _line(name, status), words.attributes_of(status)))
        if not entries:
            raise EOFError("end of directory")
        return _names(entries)

    def _extended(self, parts: Parts) -> bytes | None:
        match parts.text():
            case b"posix-rename@openssh.com":
                os.rename(parts.text(), parts.text())
            case b"hardlink@openssh.com":
                os.link(parts.text(), parts.text(), follow_symlinks=False)
            case b"fsync@openssh.com":
                os.fsync(self._file(parts))
            case b"statvfs@openssh.com":
                return _space(os.statvfs(parts.text()))
            case _:
                return _refused(words.OP_UNSUPPORTED, "not supported")
        return None


def _check_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _os_error(errno.EISDIR)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EOPNOTSUPP, "not a regular file")


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _refused(code: int, message: str) -> bytes:
    return bytes((words.STATUS,)) + words.status(code, message)


def _told(status: os.stat_result) -> bytes:
    return bytes((words.ATTRS,)) + words.attributes_of(status).packed()


def _names(entries: list[tuple[bytes, bytes, Attributes]]) -> bytes:
    told = (text(name) + text(line or name) + known.packed() for name, line, known in entries)
    return bytes((words.NAME,)) + number(len(entries)) + b"".join(told)


def _line(name: bytes, status: os.stat_result) -> bytes:
    """As of `ls -l`: what interactive clients show."""
    at = time.gmtime(status.st_mtime)  # and no strftime: it reads the container's /etc/localtime
    when = f"{MONTHS[3 * at.tm_mon - 3 :][:3]} {at.tm_mday:02} {at.tm_hour:02}:{at.tm_min:02}"
    columns = (
        stat.filemode(status.st_mode), f"{status.st_nlink:>4}", f"{status.st_uid:<8}", f"{status.st_gid:<8}",
        f"{status.st_size:>8}", when,
    )  # fmt: skip
    return " ".join(columns).encode() + b" " + name


def _change(target: bytes | int, wanted: Attributes) -> None:
    """Of a link, what it leads to."""
    if wanted.size is not None:
        os.truncate(target, wanted.size)
    if wanted.ids is not None:
        os.chown(target, *wanted.ids)
    if wanted.mode is not None:  # after the owner: a change of that takes setuid away
        os.chmod(target, stat.S_IMODE(wanted.mode))
    if wanted.times is not None:
        os.utime(target, wanted.times)


def _mkdir(parts: Parts) -> None:
    path, wanted = parts.text(), parts.attributes()
    os.mkdir(path, FOLDER_MODE if wanted.mode is None else stat.S_IMODE(wanted.mode))


def _rename(parts: Parts) -> None:
    before, after = parts.text(), parts.text()
    if os.path.lexists(after):
        raise _os_error(errno.EEXIST)
    os.rename(before, after)


def _space(found: os.statvfs_result) -> bytes:
    values = (
        found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
        found.f_ffree, found.f_favail, found.f_fsid, found.f_flag & 3, found.f_namemax,
    )  # fmt: skip
    return bytes((words.EXTENDED_REPLY,)) + b"".join((value & (1 << 64) - 1).to_bytes(8) for value in values)


def run(client: socket.socket) -> NoReturn:
    """Serve, then end the process."""
    os.umask(0)
    try:
        Server(client).serve()
    finally:
        os._exit(0)
