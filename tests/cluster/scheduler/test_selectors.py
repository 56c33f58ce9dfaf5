import pytest

from cluster.errors import Conflict, Invalid, Unsupported
from cluster.scheduler.selectors import asks_of, expand_gpu
from cluster.scheduler.types import GpuAsk, Term
from tests.cluster.scheduler.builders import GIB


def test_the_short_form_is_one_device_named_gpu() -> None:
    config = {"limits.gpu": "2", "gpu.match": "vendor=nvidia", "gpu.sharing": "shared", "gpu.memory": "4GiB"}
    assert expand_gpu(config, {"root": {"type": "disk"}}) == {
        "root": {"type": "disk"},
        "gpu": {"type": "gpu", "count": "2", "match": "vendor=nvidia", "sharing": "shared", "memory": "4GiB"},
    }


def test_expanding_twice_is_expanding_once() -> None:
    once = expand_gpu({"limits.gpu": "1"}, {})
    assert expand_gpu({"limits.gpu": "1"}, once) == once
    assert len(asks_of(once, {"limits.gpu": "1"})) == 1


def test_no_count_or_none_makes_no_device() -> None:
    assert expand_gpu({"gpu.match": "vendor=nvidia"}, {}) == {}
    assert expand_gpu({"limits.gpu": "0"}, {}) == {}


def test_a_device_of_the_same_name_is_not_overridden_in_silence() -> None:
    with pytest.raises(Conflict, match=r"limits\.gpu"):
        expand_gpu({"limits.gpu": "1"}, {"gpu": {"type": "nic"}})


def test_a_counted_device_is_exclusive_unless_it_says_otherwise() -> None:
    devices = {
        "a": {"type": "gpu", "count": "2", "match": "model~A100"},
        "b": {"type": "gpu", "count": "1", "sharing": "shared", "memory": "8GiB"},
    }
    assert asks_of(devices, {}) == (
        GpuAsk(device="a", count=2, match=(Term("model", "~", "A100"),)),
        GpuAsk(device="b", sharing="shared", memory=8 * GIB),
    )


def test_a_condition_without_a_count_asks_for_one() -> None:
    (ask,) = asks_of({"a": {"type": "gpu", "match": "vendor=amd"}}, {})
    assert (ask.count, ask.sharing) == (1, "exclusive")


def test_lxds_selectors_keep_their_shared_meaning() -> None:
    devices = {"a": {"type": "gpu", "vendorid": "10DE", "id": "1"}, "b": {"type": "gpu"}}
    assert asks_of(devices, {}) == (
        GpuAsk(
            device="a", count=0, sharing="shared", match=(Term("id", "=", "1"), Term("vendorid", "=", "10DE"))
        ),
        GpuAsk(device="b", count=0, sharing="shared"),
    )


def test_a_selector_with_a_count_is_counted() -> None:
    (ask,) = asks_of({"a": {"type": "gpu", "pci": "07:00.0", "count": "1"}}, {})
    assert (ask.count, ask.sharing, ask.match) == (1, "exclusive", (Term("pci", "=", "07:00.0"),))


def test_other_devices_ask_for_nothing() -> None:
    assert asks_of({"root": {"type": "disk"}, "gpu": {"type": "none"}}, {}) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": "many"}, "count"),
        ({"count": "0"}, "count"),
        ({"count": "65"}, "count"),
        ({"count": "-1"}, "count"),
        ({"count": "١"}, "count"),
        ({"count": "9" * 30}, "count"),
        ({"sharing": "maybe"}, "sharing"),
        ({"memory": "much", "sharing": "shared"}, "memory"),
        ({"match": "cores=1"}, "cores"),
    ],
)
def test_a_bad_option_is_refused_by_name(options: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid, match=rf"g0: .*{said}"):
        asks_of({"g0": {"type": "gpu", **options}}, {})


def test_a_bad_limit_is_refused_by_its_key() -> None:
    with pytest.raises(Invalid, match=r"limits\.gpu: \"two\""):
        asks_of({}, {"limits.gpu": "two"})


def test_a_kind_of_gpu_that_is_not_counted_is_refused() -> None:
    with pytest.raises(Unsupported, match="mdev"):
        asks_of({"g": {"type": "gpu", "gputype": "mdev"}}, {})


def test_mig_devices_are_asked_for_in_the_same_words() -> None:
    devices = {
        "a": {"type": "gpu", "gputype": "mig", "mig.profile": "1g.5gb"},
        "b": {"type": "gpu", "gputype": "mig", "mig.uuid": "MIG-1"},
    }
    assert asks_of(devices, {}) == (
        GpuAsk(device="a", kind="mig", match=(Term("mig.profile", "=", "1g.5gb"),)),
        GpuAsk(device="b", kind="mig", count=0, sharing="shared", match=(Term("mig.uuid", "=", "MIG-1"),)),
    )


def test_the_short_form_asks_for_mig_devices_by_their_conditions() -> None:
    config = {"limits.gpu": "2", "gpu.match": "mig.profile=1g.5gb"}
    assert expand_gpu(config, {})["gpu"]["gputype"] == "mig"
    assert asks_of({}, config)[0].kind == "mig"
    with pytest.raises(Invalid, match="gputype=mig"):
        asks_of({"a": {"type": "gpu", "match": "mig.gi=1"}}, {})
