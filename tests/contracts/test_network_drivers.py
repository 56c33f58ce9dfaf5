"""The fake network driver keeps the contract of the real ones."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from cluster.errors import Invalid
from lxdpy.host.network.driver import NetworkDriver
from lxdpy.host.network.fake import FakeBridge
from lxdpy.host.network.registry import fake_networks
from tests.contracts.network import PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_the_fake_keeps(promise: Callable[[NetworkDriver], Awaitable[None]]) -> None:
    async def scenario() -> None:
        await promise(FakeBridge())

    asyncio.run(scenario())


def test_drivers_are_found_by_type() -> None:
    networks = fake_networks()
    assert networks.driver_for("bridge").type == "bridge"
    with pytest.raises(Invalid, match='"ovn"; known: bridge'):
        networks.driver_for("ovn")


def test_a_new_network_gets_addresses_that_check() -> None:
    driver = fake_networks().driver_for("bridge")
    config = driver.complete({}, [f"10.{Random(5).randint(0, 255)}.0.0/16"])
    driver.check("br0", config)
    assert config["ipv4.nat"] == config["ipv6.nat"] == "true"
