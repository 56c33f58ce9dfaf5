import errno
import os
from pathlib import Path

import pytest

from lxdpy.host.intercept.bpf import INSTRUCTION, LOADING, check, is_below, loading
from lxdpy.host.intercept.calls import Leave

END = INSTRUCTION.pack(0x95, 0, 0, 0)
WIDE, CALL, CALL_BY_REGISTER = 0x18, 0x85, 0x8D


def asked(*, kind: int = 15, count: int = 3, flags: int = 0, interface: int = 0, hook: int = 0) -> bytes:
    return LOADING.pack(kind, count, 8, 16, 0, 0, 0, 0, flags, b"deny", interface, hook)


def test_what_is_asked_is_read_however_much_of_it_there_is() -> None:
    whole = loading(asked(hook=6) + bytes(40))
    assert (whole.kind, whole.length, whole.instructions, whole.license) == (15, 3, 8, 16)
    assert loading(asked()[:24])._replace(name=b"") == loading(asked())._replace(name=b"")


@pytest.mark.parametrize(
    "other",
    [asked(kind=1), asked(hook=7), asked(flags=2), asked(interface=1), asked() + b"\1"],
    ids=["a filter", "another hook", "flags", "an interface", "types"],
)
def test_other_programs_and_wishes_are_left_to_the_kernel(other: bytes) -> None:
    with pytest.raises(Leave):
        loading(other)


@pytest.mark.parametrize("count", [0, 65_537])
def test_a_program_has_some_instructions_and_not_too_many(count: int) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
        loading(asked(count=count))


def test_a_program_may_compute_and_call_itself() -> None:
    constant = INSTRUCTION.pack(WIDE, 1, 0, 7) + INSTRUCTION.pack(CALL, 0x20, 0, 1)
    check(INSTRUCTION.pack(0xB7, 0, 0, 1) + constant + INSTRUCTION.pack(CALL, 0x10, 0, 1) + END)


@pytest.mark.parametrize(
    "words",
    [
        (WIDE, 0x11, 0, 3),
        (WIDE, 0x31, 0, 3),
        (CALL, 0, 0, 6),
        (CALL, 0x20, 0, 6),
        (CALL_BY_REGISTER, 0, 0, 1),
    ],
    ids=["map", "type", "helper", "function of the kernel", "address"],
)
def test_a_program_names_nothing_of_the_kernels(words: tuple[int, int, int, int]) -> None:
    with pytest.raises(PermissionError):
        check(INSTRUCTION.pack(*words) + bytes(8) + END)


def test_a_folder_that_is_no_control_group_is_below_none(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    handle = os.open(tmp_path / "below", os.O_PATH)
    try:
        assert not is_below(handle, "")
        assert not is_below(handle, "/proc")
    finally:
        os.close(handle)
