import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

import msgspec
import pytest

from cluster.errors import Unavailable
from cluster.membership.model import MEMBERS, Member
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.daemon.context import Daemon
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.gpu.health import Verdict
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.resources.gpu_queue.commands import FinishTurn
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.gpus import actions
from lxdpy.resources.gpus.actions import GpuWatch, differs, overdue, rows_of
from lxdpy.resources.gpus.commands import DrainGpu, ReportGpus, granted, parts_of
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.server.model import SETTINGS, Setting
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.host.gpu.trees import link_to_null
from tests.lxdpy.resources.gpus.scene import OTHER, add, created, gpu, second_member
from tests.patience import WITHIN

TWO = "gpus: [{vendor: nvidia, uuid: GPU-1, links: {GPU-2: nvlink}}, {vendor: amd, pci: '0000:99:00.0'}]"
ONE = "gpus: [{vendor: nvidia, uuid: GPU-1}]"
THIRD = "cccccccccccc"
CARD = Gpu(
    uuid="GPU-1", vendor="nvidia", model="A100", memory=40 << 30, driver="nvidia", driver_version="550",
    pci_address="0000:07:00.0", vendor_id="10de", product_id="20b0",
)  # fmt: skip
WELL = {"GPU-1": Verdict()}


class Lonely(LocalStore):
    """That has no leader for as long as `alone` says so."""

    alone = False

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        if self.alone:
            raise Unavailable("No leader")
        return await super().propose(command, request_id=request_id, timeout=timeout)


class Host:
    """A watch over fake GPUs, of which the file can be rewritten."""

    def __init__(self, folder: Path, written: str, store: LocalStore | None = None) -> None:
        self.store = store or LocalStore()
        self.file = folder / "gpus.yaml"
        self.file.write_text(written)
        fake = FakeGpus(self.file, folder / "fake", "n1", link_to_null)
        self.daemon = asyncio.run(self._daemon(folder))
        self.watch = GpuWatch(self.daemon, fake.root, fake)

    async def _daemon(self, folder: Path) -> Daemon:
        return local_daemon(folder, self.store)

    def rewrite(self, written: str) -> None:
        before = self.file.stat().st_mtime_ns
        self.file.write_text(written)
        os.utime(self.file, ns=(before + 10**9, before + 10**9))

    def report(self) -> bool:
        """Whether it had anything to say."""
        before = self.store.state.index
        asyncio.run(self.watch.report())
        return self.store.state.index > before

    def row(self, uuid: str) -> GpuRow:
        return self.store.state.get(GPUS, uuid)


def test_cards_are_reported_once(tmp_path: Path) -> None:
    host = Host(tmp_path, TWO)
    assert host.report()
    row = host.row("GPU-1")
    assert (row.member, row.vendor, row.driver, row.health, row.links) == (
        MEMBER_ID, "nvidia", "nvidia", "ok", {"GPU-2": "nvlink"},
    )  # fmt: skip
    assert {r.pci_address for r in host.store.state.rows(GPUS).values()} >= {"0000:99:00.0"}
    assert not host.report()


def test_a_changed_file_is_reported(tmp_path: Path) -> None:
    host = Host(tmp_path, TWO)
    host.report()
    host.rewrite("gpus: [{vendor: nvidia, uuid: GPU-1, xid: 79}]")
    assert host.report()
    assert list(host.store.state.rows(GPUS)) == ["GPU-1"]
    assert host.row("GPU-1").health == "failed"


def test_a_lost_card_with_a_holder_is_missing_and_said_so_once(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    created(host.store, "c1", "GPU-1", status="Running", started=True)
    host.rewrite("gpus: []")
    assert host.report()
    assert host.row("GPU-1").state == "missing"
    assert not host.report()
    host.rewrite(ONE)
    assert host.report()
    assert [h.instance for h in host.row("GPU-1").holders] == ["default/c1"]
    assert host.row("GPU-1").state == "exclusive"


def test_draining_and_holders_are_no_news(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    host.store.run(DrainGpu("GPU-1", True))
    created(host.store, "c1", "GPU-1")
    assert not host.report()


def test_another_members_card_is_claimed_once_and_given_up(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    second_member(host.store)
    add(host.store, gpu("GPU-1", OTHER))
    assert host.report()
    assert (host.row("GPU-1").member, host.row("GPU-1").claimed_by) == (OTHER, MEMBER_ID)
    assert not host.report()
    host.rewrite("gpus: []")
    assert host.report()
    assert (host.row("GPU-1").member, host.row("GPU-1").claimed_by) == (OTHER, "")


def test_claimants_do_not_take_turns(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    second_member(host.store)
    host.store.put(MEMBERS, THIRD, Member(THIRD, "n3", status="ready"))
    add(host.store, msgspec.structs.replace(gpu("GPU-1", OTHER), claimed_by=THIRD))
    assert not host.report()


def test_a_host_that_joins_anew_gets_its_cards_back(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    add(host.store, gpu("GPU-1", OTHER), gpu("GPU-2", OTHER))  # OTHER was this host before it was removed
    assert host.report()
    assert list(host.store.state.rows(GPUS)) == ["GPU-1"]
    assert (host.row("GPU-1").member, host.row("GPU-1").state) == (MEMBER_ID, "free")
    assert not host.report()


def test_a_removed_members_claim_is_void(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    host.store.put(GPUS, "GPU-1", msgspec.structs.replace(host.row("GPU-1"), claimed_by=OTHER))
    assert host.report()
    assert host.row("GPU-1").state == "free"


def test_a_removed_members_card_that_is_held_is_missing_and_left_alone(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: []")
    add(host.store, gpu("GPU-2", OTHER))
    created(host.store, "c1", "GPU-2", status="Running", started=True, location=OTHER)
    assert host.report()
    assert host.row("GPU-2").state == "missing"
    assert not host.report()


def test_a_card_cut_into_parts_is_told_with_them(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, mig: [1g.5gb, 2g.10gb]}]")
    host.report()
    assert host.row("GPU-1").state == "partitioned"
    parts = parts_of(host.store.state, "GPU-1")
    assert [(row.profile, row.gi, row.ci, row.memory >> 30, row.state) for row in parts] == [
        ("1g.5gb", 1, 0, 5, "free"), ("2g.10gb", 2, 0, 10, "free"),
    ]  # fmt: skip
    assert parts[0].model == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    assert not host.report()


def test_a_fault_of_a_card_is_one_of_its_parts(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, mig: [1g.5gb], ecc: 2}]")
    host.report()
    assert {(row.health, row.reason) for row in host.store.state.rows(GPUS).values()} == {
        ("failed", "2 uncorrected memory errors")
    }


def test_a_fault_lasts_in_the_ledger_until_it_has_been_watched_for(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, xid: 79}]")
    host.store.put(SETTINGS, "gpu.health.every", Setting("1"))
    host.store.put(SETTINGS, "gpu.health.probes", Setting("1"))
    host.report()
    assert (host.row("GPU-1").health, host.row("GPU-1").reason) == ("failed", "XID 79")
    host.rewrite(ONE)
    assert not host.report(), "only a reset ends it"
    another = Host(tmp_path, ONE, host.store)
    assert not another.report(), "nor does another daemon"
    host.store.run(DrainGpu("GPU-1", False))
    assert host.row("GPU-1").health == "recovering"
    assert host.report()
    assert (host.row("GPU-1").health, host.row("GPU-1").reason) == ("ok", "")


def test_a_fault_that_was_heard_while_nobody_could_be_told_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Lonely()
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, pci: '0000:07:00.0'}]", store)
    host.report()
    heard = [("0000:07:00.0", 79)]  # as the driver tells it: once
    monkeypatch.setattr(host.watch._vigil.faults, "drain", lambda: [heard.pop()] if heard else [])
    store.alone = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            host.report()
    store.alone = False
    assert host.report()
    assert (host.row("GPU-1").health, host.row("GPU-1").reason) == ("failed", "XID 79")
    store.run(DrainGpu("GPU-1", False))
    assert not host.report(), "an operator's wish counts from then on"
    assert host.row("GPU-1").health == "recovering"


def test_a_restart_of_the_machine_ends_what_needs_a_reset(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, xid: 79}]")
    host.report()
    host.rewrite(ONE + "\nboot: 2")
    assert host.report()
    assert (host.row("GPU-1").health, host.row("GPU-1").reason) == ("recovering", "after: XID 79")


def test_what_a_fault_means_is_a_setting(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, xid: 79}]")
    host.store.put(SETTINGS, "gpu.health.xids", Setting("79=ok"))
    host.report()
    assert host.row("GPU-1").health == "ok"


def test_what_is_known_of_a_card_stays_when_it_is_lost(tmp_path: Path) -> None:
    host = Host(tmp_path, "gpus: [{vendor: nvidia, uuid: GPU-1, mig: [1g.5gb]}]\nnvml: true")
    host.report()
    before = host.row("GPU-1")
    host.rewrite("gpus: [{vendor: nvidia, uuid: GPU-1, mig: [1g.5gb], lost: true}]\nnvml: true")
    assert host.report()
    assert host.row("GPU-1") == msgspec.structs.replace(before, health="failed", reason="does not answer")
    assert len(parts_of(host.store.state, "GPU-1")) == 1
    assert not host.report()


def test_a_card_announced_twice_by_its_own_host_is_a_conflict(tmp_path: Path) -> None:
    (card,) = rows_of((CARD,), MEMBER_ID, {}, WELL)
    (doubled,) = rows_of((CARD, CARD), MEMBER_ID, {}, WELL)
    assert (card.state, doubled.state) == ("free", "conflict")
    host = Host(tmp_path, ONE)
    host.store.run(ReportGpus(MEMBER_ID, (doubled,)))
    assert not differs(host.store.state, MEMBER_ID, (doubled,))
    assert differs(host.store.state, MEMBER_ID, (card,))
    host.store.run(ReportGpus(MEMBER_ID, (card,)))
    assert host.row("GPU-1").state == "free"


def test_who_is_no_member_yet_reports_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.store.put(MEMBERS, MEMBER_ID, None)
    assert not host.report()


def test_a_lasting_failure_is_logged_once_and_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "LOOK_EVERY", 0.01)
    host = Host(tmp_path, ONE)
    host.file.unlink()
    looks, look = asyncio.Semaphore(0), host.watch.report

    async def counted() -> None:
        looks.release()
        await look()

    monkeypatch.setattr(host.watch, "report", counted)

    async def watched() -> None:
        running = asyncio.create_task(host.watch.run())
        async with asyncio.timeout(WITHIN):
            for _ in range(4):
                await looks.acquire()
        reported = asyncio.Event()
        host.store.watch(lambda _: reported.set())
        host.file.write_text(ONE)
        async with asyncio.timeout(WITHIN):
            await reported.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    with caplog.at_level(logging.WARNING):
        asyncio.run(watched())
    assert len([line for line in caplog.messages if "gpus.yaml" in line]) == 1


def test_a_grant_that_no_start_followed_is_given_back(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    host.store.now = time.time() - actions.START_WITHIN - 1
    key = created(host.store, "c1", "GPU-1")
    asyncio.run(host.watch.release())
    assert host.row("GPU-1").state == "free"
    assert granted(host.store.state.get(INSTANCES, key).config) == {}


def test_nothing_is_given_back_on_an_old_state_nor_while_the_queue_has_a_start_to_come(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    host.store.now = time.time() - actions.START_WITHIN - 1
    key = created(host.store, "c1", "GPU-1")
    host.daemon.current = False
    asyncio.run(host.watch.release())
    assert host.row("GPU-1").state == "exclusive"
    host.daemon.current = True
    host.store.put(GPU_QUEUE, "t", Turn("t", "default", "granted", start=key, location=MEMBER_ID))
    asyncio.run(host.watch.release())
    assert host.row("GPU-1").state == "exclusive"
    host.store.run(FinishTurn("t", "it failed"))
    asyncio.run(host.watch.release())
    assert host.row("GPU-1").state == "free"


def _late(**instance: str) -> list[str]:
    """Which of one instance's grants are overdue, a minute and a second after they were made."""
    store = LocalStore()
    second_member(store)
    add(store, gpu("GPU-1", instance.get("location", MEMBER_ID)))
    created(store, "c1", "GPU-1", **instance)  # type: ignore[arg-type]
    return overdue(store.state, MEMBER_ID, store.now + actions.START_WITHIN + 1)


def test_grants_are_overdue_after_a_minute_but_not_of_others_nor_held_ones() -> None:
    assert _late() == ["default/c1"]
    assert _late(status="Error") == ["default/c1"]
    assert _late(location=OTHER) == []
    assert _late(status="Creating") == []
    assert _late(status="Running") == []
    assert _late(**{"gpu.hold": "always"}) == []


@pytest.mark.parametrize(("ran", "hold", "found"), [(0, "", []), (1, "", ["default/c1"]), (1, "always", [])])
def test_grants_are_not_overdue_within_the_minute_but_of_who_ran(
    ran: int, hold: str, found: list[str]
) -> None:
    store = LocalStore()
    add(store, gpu("GPU-1"))
    created(store, "c1", "GPU-1", started=bool(ran), **{"gpu.hold": hold})  # type: ignore[arg-type]
    assert overdue(store.state, MEMBER_ID, store.now + actions.START_WITHIN - 1) == found


def test_an_instance_that_is_just_being_started_keeps_its_grant(tmp_path: Path) -> None:
    host = Host(tmp_path, ONE)
    host.report()
    host.store.now = time.time() - actions.START_WITHIN - 1
    key = created(host.store, "c1", "GPU-1")

    async def release_meanwhile() -> None:
        async with host.daemon.lock(f"instance {key}"), asyncio.timeout(WITHIN):
            await host.watch.release()

    asyncio.run(release_meanwhile())
    assert host.row("GPU-1").state == "exclusive"


def test_who_has_joined_reports_at_once_under_its_new_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "SOON", 0.01)
    monkeypatch.setattr(actions, "LOOK_EVERY", 3 * WITHIN)
    host = Host(tmp_path, ONE)

    async def joined() -> None:
        running = asyncio.create_task(host.watch.run())
        reported = asyncio.Event()
        host.store.watch(lambda _: reported.set())
        async with asyncio.timeout(WITHIN):  # less than LOOK_EVERY
            await reported.wait()
            second_member(host.store)
            host.store.put(GPUS, "GPU-1", None)  # the joined cluster's log knows nothing of it
            host.store.member_id = OTHER
            while "GPU-1" not in host.store.state.rows(GPUS):
                reported.clear()
                await reported.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(joined())
    assert host.row("GPU-1").member == OTHER
