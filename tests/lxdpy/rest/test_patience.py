import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxdpy.rest.auth import FORWARDED_PROTOCOL
from lxdpy.rest.patience import HOST_SILENT, notice_lost_host


@pytest.mark.parametrize(("headers", "limit"), [({}, HOST_SILENT * 1000), ({FORWARDED_PROTOCOL: "unix"}, 0)])
def test_only_who_reads_for_itself_is_given_up_when_it_takes_nothing(
    headers: dict[str, str], limit: int
) -> None:
    with socket.socket(socket.AF_INET) as sock:
        transport = SimpleNamespace(get_extra_info=lambda _: sock)
        notice_lost_host(cast(Any, SimpleNamespace(transport=transport, headers=headers)))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == limit
