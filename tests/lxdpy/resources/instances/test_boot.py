import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.host.paths import under
from lxdpy.resources.instances.boot import has_booted, is_wanted
from lxdpy.resources.instances.model import Instance, Move
from tests.lxdpy.fakes import MEMBER_ID, local_daemon

ROW = Instance("default", "c1", "u1", MEMBER_ID, status="Stopped")
RAN = {"volatile.last_state.power": "RUNNING"}


@pytest.mark.parametrize(
    ("autostart", "ran", "wanted"),
    [
        ("", True, True),
        ("", False, False),
        ("true", True, True),
        ("true", False, True),
        ("false", True, False),
        ("false", False, False),
    ],
)
def test_it_starts_with_its_host_if_told_so_or_if_it_ran(autostart: str, ran: bool, wanted: bool) -> None:
    row = msgspec.structs.replace(ROW, config=RAN if ran else {})
    config = row.config | ({"boot.autostart": autostart} if autostart else {})
    assert is_wanted(row, config) is wanted


@pytest.mark.parametrize("change", [{"status": "Running"}, {"move": Move("op", MEMBER_ID, "p")}])
def test_what_runs_or_is_on_its_way_is_left_alone(change: dict[str, Any]) -> None:
    row = msgspec.structs.replace(ROW, **change)
    assert not is_wanted(row, {"boot.autostart": "true"})


async def boots(root: Path, *ids: str) -> list[bool]:
    """What daemons find that run one after the other, each in the boot of that id."""
    file = root / "proc/sys/kernel/random/boot_id"
    file.parent.mkdir(parents=True, exist_ok=True)
    daemon = local_daemon(root, host=under(root))
    found = []
    for id in ids:
        file.write_text(f"{id}\n")
        found.append(await has_booted(daemon))
    return found


def test_a_boot_is_told_from_a_start_of_the_daemon(tmp_path: Path) -> None:
    assert asyncio.run(boots(tmp_path, "a", "a", "b", "b", "a")) == [True, False, True, False, True]
