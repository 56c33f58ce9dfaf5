import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cluster.errors import Conflict, Error, Invalid, Unavailable
from cluster.membership.commands import CreateToken
from cluster.membership.model import Status, Token
from cluster.membership.tokens import hash_of
from cluster.tls.certificates import fingerprint_of, make
from lxdpy.resources.cluster.actions import Ticket, ask_any
from lxdpy.resources.cluster.evacuate import can_move, check
from lxdpy.resources.cluster.internal import MOST_SKEW, check_clock, is_same, member_of, routes
from lxdpy.resources.cluster.model import Accept
from tests.lxdpy.rest.members import members

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def asked() -> Accept:
    certificate, _ = make("n3")
    return Accept("secret", "n3", "3" * 12, "10.0.0.3:8443", certificate, "x86_64", features=2, version="1")


def test_who_asks_again_with_the_same_certificate_while_joining_is_let_in_again(asked: Accept) -> None:
    row = member_of(asked)
    assert (row.status, row.features, row.version) == ("joining", 2, "1")
    assert is_same(row, asked)
    assert is_same(replace(row, joined_at=5.0, architecture="aarch64"), asked)
    assert not is_same(replace(row, status="ready"), asked)
    assert not is_same(row, replace(asked, certificate=make("n3")[0]))
    assert not is_same(None, asked)


def test_clocks_may_differ_by_a_little() -> None:
    check_clock(MOST_SKEW)
    check_clock(-MOST_SKEW)
    with pytest.raises(Conflict, match="clock is 3600 s ahead of the cluster's: set it right, then join"):
        check_clock(3600)
    with pytest.raises(Conflict, match="clock is 3601 s behind the cluster's"):
        check_clock(-3600.7)


def test_a_joiner_goes_on_to_the_next_address_when_somebody_else_is_at_the_first(
    tmp_path: Path, asked: Accept
) -> None:
    """A server that was removed since the token was made listens there still."""

    async def story() -> None:
        async with members(tmp_path, [routes]) as made:
            stranger, member = made.all
            stranger.tls.replace(stranger.keys)
            store: Any = member.store
            store.cluster_id = "c1"
            store.run(CreateToken(Token("t", "member", "n3", hash_of("secret"), 0.0)))
            ask = replace(asked, certificate=made.client.pem(), now=time.time())
            joiner: Any = SimpleNamespace(keys=made.client)
            addresses = tuple(f"127.0.0.1:{fake.port}" for fake in made.all)
            ticket = Ticket("n3", addresses[:1], fingerprint_of(made.pinned), "secret")
            with pytest.raises(Unavailable, match="not have the certificate the token is pinned to"):
                await ask_any(joiner, ticket, ask)
            answer = await ask_any(joiner, replace(ticket, addresses=addresses), ask)
            assert asked.member_id in answer.members

    asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "action", "mode", "kind", "said"),
    [
        ("ready", "explode", "", Invalid, "Unknown action 'explode'"),
        ("ready", "evacuate", "fly", Invalid, "Unknown mode 'fly'"),
        ("ready", "restore", "", Invalid, "Cluster member is already restored"),
        ("joining", "evacuate", "", Invalid, "pending cluster member"),
        ("leaving", "restore", "", Invalid, "pending cluster member"),
    ],
)
def test_what_cannot_be_done_to_a_member_is_refused(
    status: Status, action: str, mode: str, kind: type[Error], said: str
) -> None:
    with pytest.raises(kind, match=said):
        check(status, action, mode)


@pytest.mark.parametrize(
    ("status", "action"), [("ready", "evacuate"), ("evacuated", "evacuate"), ("evacuated", "restore")]
)
def test_what_was_cut_short_can_be_gone_on_with(status: Status, action: Any) -> None:
    check(status, action, "stop")


def test_a_restored_member_fetches_what_it_has_not_got_back_yet() -> None:
    check("ready", "restore", "", away=True)


@pytest.mark.parametrize(
    ("device", "moves"),
    [
        ({"type": "disk", "path": "/", "pool": "p"}, True),
        ({"type": "nic", "network": "lxdbr0"}, True),
        ({"type": "gpu", "count": "2"}, True),
        ({"type": "none"}, True),
        ({"type": "nic", "nictype": "macvlan", "parent": "eth0"}, False),
        ({"type": "disk", "path": "/x", "source": "/srv"}, False),
        ({"type": "disk", "path": "/x", "source": "tmpfs:"}, True),
        ({"type": "proxy", "listen": "tcp::1", "connect": "tcp::2"}, False),
    ],
)
def test_only_what_needs_nothing_of_its_host_is_moved_unasked(device: dict[str, str], moves: bool) -> None:
    assert can_move({"root": {"type": "disk", "path": "/"}, "one": device}) is moves
