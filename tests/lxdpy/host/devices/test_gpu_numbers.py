"""Cards come and go, and the numbers of their files with them."""

from lxdpy.host.devices.driver import Node, Seat
from lxdpy.host.devices.gpu_numbers import Numbers, numbers_of
from lxdpy.host.devices.gpu_options import NODES
from lxdpy.host.gpu import inventory

CONTROL = (inventory.Node("/dev/nvidiactl", 195, 255, "/dev/nvidiactl"),)
HAD = "/dev/nvidiactl=195:255,/dev/nvidia1=195:1"


def card(minor: int) -> tuple[inventory.Node, ...]:
    return (inventory.Node(f"/dev/nvidia{minor}", 195, minor, f"/dev/nvidia{minor}"),)


def numbers(files: dict[str, tuple[inventory.Node, ...]], *gpus: str, had: str = HAD, **more: str) -> Numbers:
    options = {"type": "gpu", "mode": "0600", **more}
    seat = Seat(instance="default/c1", name="g", options=options, gpus=gpus, volatile={NODES: had})
    return numbers_of(seat, files, CONTROL)


def paths(nodes: tuple[Node, ...]) -> list[str]:
    return [node.path for node in nodes]


def test_nothing_changes_while_the_numbers_are_the_same() -> None:
    found = numbers({"A": card(0), "B": card(1)}, "B")
    assert (found.loses, found.gets) == ((), ())
    assert found.volatile[NODES] == HAD


def test_files_that_were_never_noted_are_noted_and_stay() -> None:
    seat = Seat(instance="default/c1", name="g", options={"type": "gpu"}, gpus=("B",))
    found = numbers_of(seat, {"A": card(0), "B": card(1)}, CONTROL)
    assert (found.loses, found.gets) == ((), ())
    assert found.volatile[NODES] == HAD


def test_a_card_with_another_number_gets_another_file() -> None:
    found = numbers({"B": card(0)}, "B")
    assert (paths(found.loses), paths(found.gets)) == (["/dev/nvidia1"], ["/dev/nvidia0"])
    assert found.gets[0].mode == 0o600
    assert found.volatile == {
        "gpu.uuids": "B",
        NODES: "/dev/nvidiactl=195:255,/dev/nvidia0=195:0",
    }


def test_the_file_of_a_lost_card_stays_until_another_card_has_its_number() -> None:
    found = numbers({"A": card(0)}, "B")
    assert (found.loses, found.gets) == ((), ())
    found = numbers({"A": card(1)}, "B")
    assert (paths(found.loses), paths(found.gets)) == (["/dev/nvidia1"], [])
    assert found.volatile[NODES] == "/dev/nvidiactl=195:255"
    back = numbers({"A": card(1), "B": card(0)}, "B", had=found.volatile[NODES])
    assert (paths(back.loses), paths(back.gets)) == ([], ["/dev/nvidia0"])


def test_of_two_cards_that_change_places_each_file_stays() -> None:
    had = "/dev/nvidiactl=195:255,/dev/nvidia0=195:0,/dev/nvidia1=195:1"
    found = numbers({"A": card(1), "B": card(0)}, "A", "B", had=had)
    assert (found.loses, found.gets) == ((), ())


def test_a_cdi_device_keeps_what_its_spec_brought_but_for_the_file_of_anothers_card() -> None:
    had = HAD + ",/dev/nvidia-caps/nvidia-cap1=240:1"
    found = numbers({"A": card(0), "B": card(1)}, "B", had=had, id="nvidia.com/gpu=1")
    assert (found.loses, found.gets) == ((), ())
    found = numbers({"A": card(1), "B": card(0)}, "B", had=had, id="nvidia.com/gpu=1")
    assert (paths(found.loses), paths(found.gets)) == (["/dev/nvidia1"], [])
