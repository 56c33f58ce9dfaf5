"""What every device driver must do. Used by tests/ where no root is needed, by integration/ on the rest."""

from lxdpy.host.devices.driver import Attachment, DeviceDriver, Seat


async def started_twice_is_the_same(driver: DeviceDriver, seat: Seat) -> None:
    driver.check(seat.options)
    first = await driver.start(seat)
    remembering = Seat(
        instance=seat.instance,
        name=seat.name,
        options=seat.options,
        volatile=first.volatile,
        network=seat.network,
        source=seat.source,
        idmap_base=seat.idmap_base,
    )
    assert await driver.start(remembering) == first
    await driver.stop(remembering)


async def stopped_twice_is_stopped(driver: DeviceDriver, seat: Seat) -> None:
    await driver.start(seat)
    await driver.stop(seat)
    await driver.stop(seat)


async def stopped_without_a_start_is_no_error(driver: DeviceDriver, seat: Seat) -> None:
    await driver.stop(seat)


async def unplugging_takes_out_no_more_than_was_put_in(driver: DeviceDriver, seat: Seat) -> None:
    put = await driver.start(seat)
    taken: Attachment = await driver.detach(seat)
    assert {mount.target for mount in taken.mounts} <= {mount.target for mount in put.mounts}
    assert {node.path for node in taken.nodes} <= {node.path for node in put.nodes}
    await driver.stop(seat)


PROMISES = (
    started_twice_is_the_same,
    stopped_twice_is_stopped,
    stopped_without_a_start_is_no_error,
    unplugging_takes_out_no_more_than_was_put_in,
)
