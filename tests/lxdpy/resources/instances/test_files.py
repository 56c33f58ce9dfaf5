import errno
import os

import pytest

from cluster.errors import Error, Exhausted, Forbidden, Invalid, NotFound, Unavailable
from lxdpy.host.sftp.words import Attributes
from lxdpy.resources.instances.files import disposition, given, headers_of, refusal, shown_link


def test_headers_say_what_a_new_file_is_to_be() -> None:
    wanted = given({"X-LXD-uid": "7", "X-LXD-mode": "0640", "X-LXD-type": "file"})
    assert wanted.attributes(0o644) == Attributes(ids=(7, 0), mode=0o640)
    assert given({}).attributes(0o644) == Attributes(mode=0o644)
    assert given({"X-LXD-mode": "4755"}).mode == 0o4755
    assert given({"X-LXD-write": "append"}).append


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-LXD-type", "socket"), ("X-LXD-write", "insert"), ("X-LXD-uid", "root"), ("X-LXD-gid", "-2"),
        ("X-LXD-gid", "4294967295"), ("X-LXD-mode", "9"), ("X-LXD-mode", "010000"), ("X-LXD-mode", "u+x"),
    ],
)  # fmt: skip
def test_bad_headers_are_refused_with_what_they_say(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=value.replace("+", r"\+")):
        given({name: value})


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound), (errno.EACCES, Forbidden), (errno.EROFS, Forbidden),
        (errno.ENOSPC, Exhausted), (errno.EIO, Unavailable), (errno.ENOTEMPTY, Invalid),
    ],
)  # fmt: skip
def test_refusals_have_a_kind_and_name_the_path(number: int, kind: type[Error]) -> None:
    told = refusal(OSError(number, os.strerror(number).lower()), "remove", "/root/d")
    assert type(told) is kind
    assert told.facts == {"path": "/root/d"}


@pytest.mark.parametrize(
    ("path", "target", "shown"),
    [
        (b"/root/l", b"/etc", b"/etc"), (b"/root/l", b"../etc/x", b"/etc/x"), (b"root/l", b"x", b"/root/x"),
        (b"/root/l", b"a/../b", b"/root/b"), (b"l", b"../../x", b"/x"),
    ],
)  # fmt: skip
def test_links_are_shown_with_their_whole_target(path: bytes, target: bytes, shown: bytes) -> None:
    assert shown_link(path, target).body == shown


def test_attributes_are_told_as_lxd_tells_them() -> None:
    assert headers_of(Attributes(3, (0, 5), 0o104755, (0, 1_763_878_487))) == {
        "X-LXD-uid": "0", "X-LXD-gid": "5", "X-LXD-mode": "0755", "X-LXD-type": "file",
        "X-LXD-modified": "2025-11-23 06:14:47 +0000 UTC",
    }  # fmt: skip
    assert headers_of(Attributes(mode=0o40700))["X-LXD-type"] == "directory"


def test_a_name_with_line_breaks_adds_no_header() -> None:
    shown = disposition(b"/root/a\r\nX-LXD-uid: 1")
    assert shown == {"Content-Disposition": "inline;filename=aX-LXD-uid: 1"}
