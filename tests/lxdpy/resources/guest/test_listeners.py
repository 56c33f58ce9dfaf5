import asyncio
from contextlib import ExitStack

import pytest

from cluster.errors import Exhausted, Invalid
from lxdpy.resources.guest import limits
from lxdpy.resources.guest.limits import Pace
from lxdpy.resources.guest.listeners import TYPES, Listener, Listeners, told, types_of
from tests.patience import WITHIN

ALL = frozenset(TYPES)
NIC = {"type": "nic", "network": "br0"}


def test_a_guest_is_told_of_its_own_keys_and_its_devices() -> None:
    had = ({"user.a": "1", "user.b": "2", "limits.cpu": "1"}, {"eth0": NIC, "gone": {"type": "none"}})
    has = (
        {"user.a": "3", "user.b": "2", "cloud-init.user-data": "x", "limits.cpu": "2", "volatile.uuid": "u"},
        {"eth0": NIC | {"mtu": "9000"}, "new": {"type": "none"}},
    )
    assert [*told(had, has)] == [
        ("config", {"key": "cloud-init.user-data", "old_value": "", "value": "x"}),
        ("config", {"key": "user.a", "old_value": "1", "value": "3"}),
        ("device", {"action": "updated", "name": "eth0", "config": NIC | {"mtu": "9000"}}),
        ("device", {"action": "removed", "name": "gone", "config": {"type": "none"}}),
        ("device", {"action": "added", "name": "new", "config": {"type": "none"}}),
    ]
    assert [*told(has, has)] == []


def test_types_are_chosen_by_name() -> None:
    assert types_of("") == ALL
    assert types_of("device") == {"device"}
    with pytest.raises(Invalid, match="lifecycle"):
        types_of("config,lifecycle")


async def heard_by(listener: Listener) -> list[str]:
    async with asyncio.timeout(WITHIN):
        return [event async for event in listener.events()]


def test_a_listener_hears_what_it_wants_until_it_is_cut() -> None:
    async def scene() -> None:
        listeners = Listeners()
        with listeners.listening(frozenset({"device"})) as listener:
            listeners.tell("config", {"key": "user.a"})
            listeners.tell("device", {"name": "eth0"})
            listeners.close()
            listeners.tell("device", {"name": "late"})
            heard = await heard_by(listener)
        assert len(heard) == 1
        assert '"eth0"' in heard[0]
        assert not listeners

    asyncio.run(scene())


def test_a_listener_that_takes_nothing_is_told_no_more() -> None:
    async def scene() -> None:
        listeners = Listeners()
        with listeners.listening(ALL) as listener:
            for _ in range(limits.WAITING + 5):
                listeners.tell("config", {})
            assert len(await heard_by(listener)) == limits.WAITING - 1
            assert not listeners

    asyncio.run(scene())


def test_listeners_are_limited() -> None:
    async def scene() -> None:
        listeners = Listeners()
        with ExitStack() as many:
            for _ in range(limits.LISTENERS):
                many.enter_context(listeners.listening(ALL))
            with pytest.raises(Exhausted):
                many.enter_context(listeners.listening(ALL))
        with listeners.listening(ALL):
            assert listeners

    asyncio.run(scene())


def test_a_pace_lets_a_burst_through_and_then_makes_wait() -> None:
    pace = Pace(rate=2.0, burst=3)
    assert [pace.wait() for _ in range(3)] == [0, 0, 0]
    first, second = pace.wait(), pace.wait()
    assert 0.3 < first <= 0.5
    assert first < second <= 1.0
