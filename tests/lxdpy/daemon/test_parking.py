import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.daemon.parking import WARN_BEFORE, Idleness, Parking, is_idle, lease_of
from lxdpy.host.gpu.facts import Process
from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.instances.model import INSTANCES, LEASED, PARKED, WARNED, Instance
from lxdpy.resources.parking.commands import RenewLease
from lxdpy.resources.warnings import conditions
from lxdpy.resources.wire import rfc3339
from tests.lxdpy.fakes import LocalStore, local_daemon
from tests.lxdpy.resources.gpus.scene import add, created, gpu
from tests.lxdpy.resources.instances.scene import FakeRuntime

HOURS = 3600.0
ROW = Instance("default", "c1", "u", "m1", config={"volatile.gpu.gpu.uuids": "a,b"})


def card(uuid: str, busy: float | None = 0.0, *processes: Process) -> Gpu:
    return Gpu(
        uuid=uuid, vendor="nvidia", model="", memory=1, driver="", driver_version="", pci_address=uuid,
        vendor_id="", product_id="", figures=Figures(busy=busy), processes=processes,
    )  # fmt: skip


def test_cards_are_idle_together_and_from_the_last_that_was_busy() -> None:
    now = 100.0
    idleness = Idleness(lambda: now)
    idleness.look([card("a"), card("b", 0.5)])
    now = 130.0
    assert idleness.of(["a"]) == 30.0
    assert idleness.of(["a", "b"]) == 0.0
    idleness.look([card("a"), card("b")])
    now = 140.0
    assert idleness.of(["a", "b"]) == 10.0
    assert is_idle({"gpu.idle": "10s"}, ROW, idleness, held_for=20)
    assert not is_idle({"gpu.idle": "11s"}, ROW, idleness, held_for=20)
    assert not is_idle({}, ROW, idleness, held_for=20)


def test_what_a_card_did_before_it_was_granted_does_not_count() -> None:
    now = 0.0
    idleness = Idleness(lambda: now)
    idleness.look([card("a"), card("b")])
    now = 1000.0
    assert not is_idle({"gpu.idle": "10s"}, ROW, idleness, held_for=9)
    assert is_idle({"gpu.idle": "10s"}, ROW, idleness, held_for=10)


@pytest.mark.parametrize("busy", [card("a", None), card("a", 0.0, Process(7)), card("a", 0.01)])
def test_a_card_that_works_or_does_not_tell_is_not_idle(busy: Gpu) -> None:
    now = 0.0
    idleness = Idleness(lambda: now)
    idleness.look([card("a")])
    idleness.look([busy])
    now = 1000.0
    assert idleness.of(["a"]) == 0.0
    assert idleness.of([]) == 0.0


def test_a_lease_begins_with_the_last_gpu_or_when_it_was_renewed() -> None:
    config = {"gpu.lease": "8h"}
    assert lease_of(ROW, config, 1000.0) == (1000 + 8 * HOURS, 1000 + 8 * HOURS - WARN_BEFORE)
    renewed = msgspec.structs.replace(ROW, config={**ROW.config, LEASED: "5000"})
    assert lease_of(renewed, config, 1000.0)[0] == 5000 + 8 * HOURS
    assert lease_of(ROW, {"gpu.lease": "100s"}, 1000.0) == (1100.0, 1090.0)
    parked = msgspec.structs.replace(ROW, config={PARKED: "asked"})
    for row, keys in ((ROW, {}), (ROW, {"gpu.lease": "-1"}), (parked, config)):
        assert lease_of(row, keys, 1000.0) == (0.0, 0.0)


class Guests:
    """What is told inside."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Any]] = []

    def tell(self, row: Instance, kind: str, content: Any) -> None:
        self.told.append((row.name, kind, content))


def test_a_lease_about_to_end_is_told_once_inside_and_stands_among_the_warnings(tmp_path: Path) -> None:
    async def check() -> None:
        store, guests = LocalStore(), Guests()
        add(store, gpu("GPU-1"))
        store.now = time.time() - 8 * HOURS + WARN_BEFORE / 2
        config = {"limits.gpu": "1", "gpu.lease": "8h"}
        key = created(store, "c1", "GPU-1", status="Running", started=True, **config)
        daemon = local_daemon(tmp_path, store, guests=guests)
        for _ in range(2):
            await Parking(daemon, Idleness()).step()
        ends = rfc3339(float(store.state.get(INSTANCES, key).config[WARNED]))
        assert conditions.leases(daemon) == {"/1.0/instances/c1": f"It ends at {ends}"}
        [(name, kind, content)] = guests.told
        assert (name, kind, content["action"]) == ("c1", "gpu", "lease-ending")
        store.run(RenewLease(key))
        assert conditions.leases(daemon) == {}

    asyncio.run(check())


def test_a_lease_that_is_renewed_while_others_give_theirs_back_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        store, runtime = LocalStore(), FakeRuntime()
        add(store, gpu("GPU-1"), gpu("GPU-2"))
        store.now = time.time() - 8 * HOURS - 1
        keys = []
        for number in (1, 2):
            config = {"limits.gpu": "1", "gpu.lease": "8h"}
            name = f"c{number}"
            keys.append(created(store, name, f"GPU-{number}", status="Running", started=True, **config))
            runtime.states[name] = ContainerState("Running", 7)
        daemon = local_daemon(tmp_path, store, guests=Guests(), runtime=runtime)
        async with daemon.lock(f"instance {keys[0]}"):
            warned = asyncio.Event()
            store.watch(lambda _: warned.set())
            looking = asyncio.create_task(Parking(daemon, Idleness()).step())
            await warned.wait()
            store.now = time.time()
            for key in keys:
                store.run(RenewLease(key))
        await looking
        assert all(PARKED not in store.state.get(INSTANCES, key).config for key in keys)

    asyncio.run(check())
    assert caplog.messages == [], "nothing was tried either"
