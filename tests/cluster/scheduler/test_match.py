from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Invalid
from cluster.scheduler.match import BadMatch, fulfils, matching, parse, size
from cluster.scheduler.place import NoSuchGpu, require_known
from cluster.scheduler.selectors import ask_of
from cluster.scheduler.types import MemberView, Term, pci_address
from tests.cluster.scheduler.builders import GIB, gpu


@pytest.mark.parametrize(
    ("expression", "true_of_it"),
    [
        ("", True),
        ("vendor=nvidia", True),
        ("vendor=NVIDIA", True),
        ("vendor=amd", False),
        ("vendor!=amd", True),
        ("model~a100", True),
        ('model="NVIDIA A100-SXM4-40GB"', True),
        ("model='nvidia a100-sxm4-40gb'", True),
        ("model=A100", False),
        ("model!~H100", True),
        ("memory>=40GiB", True),
        ("memory>40GiB", False),
        ("memory>=40GB,memory<=43GB", True),
        ("memory=40960MiB", True),
        ("driver>=550", True),
        ("driver>550", False),
        ("driver=550", True),
        ("driver>=550.54.15", False),
        ("driver<550.60", True),
        ("driver>=550.54.14.1", False),
        ("driver=nvidia", True),
        ("driver~amd", False),
        ("numa=0", True),
        ("numa>0", False),
        ("uuid=gpu-0007", True),
        ("pci=07:00.0", True),
        ("pci=00000000:07:00.0", True),
        ("pci=0001:07:00.0", False),
        ("id=7", True),
        ("vendorid=0x10DE productid=20b0", True),
        ("  vendor=nvidia ,  memory >= 40GiB  model ~ A100 ", True),
        ("vendor=nvidia memory>=80GiB", False),
    ],
)
def test_an_expression_is_true_or_false_of_a_gpu(expression: str, true_of_it: bool) -> None:
    assert fulfils(gpu(7), parse(expression)) is true_of_it


@pytest.mark.parametrize(
    ("expression", "known"),
    [
        ("memory>=1GiB", {"memory": 0}),
        ("memory<=1GiB", {"memory": 0}),
        ("model!=T4", {"model": ""}),
        ("model!~T4", {"model": ""}),
        ("driver<999", {"driver_version": ""}),
        ("numa!=0", {"numa": -1}),
    ],
)
def test_what_is_not_known_of_a_gpu_is_never_true_of_it(expression: str, known: dict[str, Any]) -> None:
    assert not fulfils(gpu(1, **known), parse(expression))


def test_an_unknown_attribute_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r'"cores".*driver.*memory.*model.*uuid.*vendor') as caught:
        parse("vendor=nvidia cores>=10")
    assert caught.value.facts["attribute"] == "cores"


@pytest.mark.parametrize(
    "expression",
    [
        "nvidia", "vendor=", "vendor==nvidia", "memory>=lots", "memory>=40XiB", "memory~40GiB",
        "vendor>=nvidia", "numa=left", 'model="A100', "vendor=nvidiamemory>=1", "=x", "model=''", "numa>=-",
        "x" * 2000, 'model="A100"x', "vendor=nvidia;reboot=1 ;", "driver~550",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(expression: str) -> None:
    with pytest.raises(Invalid, match="gpu match"):
        parse(expression)


def test_a_term_prints_as_it_can_be_read_again() -> None:
    written = 'model~"A100 SXM4" memory>=40GiB'
    assert " ".join(str(term) for term in parse(written)) == written


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        terms = parse(text)
    except Invalid as error:
        said = error.message
    else:
        said = "gpu match" if isinstance(fulfils(gpu(1), terms), bool) else ""
    assert said.startswith("gpu match")


@given(st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), st.integers(0, 100), st.integers(1, 100))
def test_memory_compares_as_numbers_do(operator: str, wanted: int, there: int) -> None:
    python = {"=": "=="}.get(operator, operator)
    truth = eval(f"{there} {python} {wanted}")
    assert fulfils(gpu(1, memory=there * GIB), parse(f"memory{operator}{wanted}GiB")) is truth


def test_matching_keeps_the_order() -> None:
    gpus = [gpu(3), gpu(1, vendor="amd"), gpu(2)]
    assert matching((Term("vendor", "=", "nvidia"),), gpus) == [gpus[0], gpus[2]]


def test_sizes_are_bytes() -> None:
    assert [size(text) for text in ("1", "1kB", "1KiB", "1.5GiB", "2 GB")] == [
        1, 1000, 1024, 3 * 2**29, 2 * 10**9,
    ]  # fmt: skip


@pytest.mark.parametrize("written", ["0000:0A:00.0", "00000000:0a:00.0", "0a:00.0", " 0000:0a:00.0 "])
def test_every_spelling_of_an_address_becomes_the_same(written: str) -> None:
    assert pci_address(written) == "0000:0a:00.0"


def test_the_name_of_a_cdi_device_stands_for_all_that_it_brings() -> None:
    gpus = [
        gpu(1, cdi=("nvidia.com/gpu=0", "nvidia.com/gpu=all")),
        gpu(2, cdi=("nvidia.com/gpu=all",)),
        gpu(3),
    ]
    assert matching((Term("id", "=", "nvidia.com/gpu=0"),), gpus) == gpus[:1]
    assert matching((Term("id", "=", "nvidia.com/gpu=all"),), gpus) == gpus[:2]
    with pytest.raises(BadMatch, match='"~" does not apply to id'):
        parse('id~"nvidia.com/gpu=0"')


def test_who_asks_by_a_cdi_name_that_is_not_there_is_told_those_that_are() -> None:
    there = [MemberView(name="n1", gpus=(gpu(1, cdi=("nvidia.com/gpu=0",)),))]
    ask = ask_of("card", {"type": "gpu", "id": "nvidia.com/gpu=7"})
    with pytest.raises(NoSuchGpu, match=r"gpu=7; there are: nvidia\.com/gpu=0$"):
        require_known([ask], there)
