"""A real cluster under faults and load keeps its word. Longer, and with other seeds: `scripts/fault-run`."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import STATES, eventually
from lxdpy.dev.api import Refused
from lxdpy.dev.faults.acts import ACTS, full
from lxdpy.dev.faults.run import scene, trouble
from lxdpy.dev.faults.scene import Scene
from lxdpy.dev.members import Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

SEED = "20"
SECONDS = 200.0
REFUSED_WITHIN = 15.0  # seconds until a member that is cut off says so: a proposal's own time, and some


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    state = Path(tempfile.mkdtemp(prefix="lxdpy-fault-", dir=STATES))
    with scene(state, 3, SEED) as made:
        yield made


def answer(member: Member, method: str, url: str, body: object = None) -> int:
    try:
        member.ask(method, url, body, timeout=REFUSED_WITHIN)
    except Refused as refusal:
        return refusal.status
    return 200


def leaders_known(member: Member) -> list[str]:
    return [line for line in member.tail(200).splitlines() if "leader in term" in line]


def test_who_is_cut_off_says_so_and_does_nothing(stage: Scene) -> None:
    """Not before its leader was silent for a while; then nothing that it is asked for is begun."""
    victim = stage.members[1]
    eventually(lambda: answer(victim, "POST", "/1.0/profiles", {"name": "before"}) == 200, within=20)
    stage.links.part([victim.name], stage.others(victim))
    eventually(lambda: leaders_known(victim)[-1].endswith("none known"), within=30)
    assert answer(victim, "POST", "/1.0/profiles", {"name": "cut-off"}) == 503
    assert answer(victim, "GET", "/1.0/profiles/default") == 200
    other = stage.members[0]
    assert answer(other, "POST", "/1.0/profiles", {"name": "majority"}) == 200
    stage.links.heal()
    eventually(lambda: answer(victim, "GET", "/1.0/profiles/majority") == 200, within=10)
    assert answer(victim, "GET", "/1.0/profiles/cut-off") == 404


def test_a_member_on_a_full_disk_does_not_start_and_loses_nothing(stage: Scene) -> None:
    victim = stage.members[2]
    with full(stage, victim):
        assert answer(stage.members[0], "POST", "/1.0/profiles", {"name": "meanwhile"}) == 200
    assert stage.surprises == []
    victim.wait_ready()
    eventually(lambda: answer(victim, "GET", "/1.0/profiles/meanwhile") == 200, within=10)


def test_room_that_was_made_is_there_after_a_power_cut(stage: Scene) -> None:
    """Else a later start would be refused for want of room, and not by what is tried."""
    victim = stage.members[1]
    disk = stage.disks[victim.name]
    disk.do("fill")
    stage.excuse(victim)
    disk.do("free")
    stage.cut_power(victim)
    stage.start(victim, wait=True)
    assert stage.surprises == []


def test_nothing_is_lost_doubled_stale_or_unequal_under_faults(
    stage: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.dice = random.Random(SEED)
    verdict = trouble(stage, SECONDS, SEED, dict.fromkeys(ACTS, 1))
    with capsys.disabled():
        print(f"\n{verdict.text()}")
    assert verdict.wrongs == []
    assert verdict.entries > 50
    assert verdict.kills > 3
