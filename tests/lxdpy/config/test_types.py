import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdpy.config import types
from lxdpy.config.types import Allowance, CpuSet, Parse, Percent

PARSERS: dict[str, Parse] = {
    "boolean": types.boolean,
    "integer": types.integer(-5, 5),
    "size": types.size,
    "size or percent": types.size_or_percent,
    "bit rate": types.bit_rate,
    "disk rate": types.disk_rate,
    "cpu set": types.cpu_set,
    "allowance": types.cpu_allowance,
    "listen address": types.listen_address,
    "address": types.address(4),
    "cidr": types.cidr(),
    "mac": types.mac_address,
    "interface": types.interface_name,
    "compression": types.compression,
    "list": types.list_of(types.boolean),
    "duration": types.duration,
    "expiry": types.expiry,
    "cron": types.cron,
}


@pytest.mark.parametrize("name", PARSERS)
@given(value=st.text(min_size=1))
def test_text_of_any_kind_is_taken_or_refused_with_what_would_be_right(name: str, value: str) -> None:
    try:
        PARSERS[name](value)
    except ValueError as found:
        wanted = str(found)
    else:
        return
    assert wanted
    assert "invalid literal" not in wanted  # int()'s own words


@pytest.mark.parametrize(
    ("value", "bytes_"),
    [
        ("0", 0), ("4096", 4096), ("5B", 5), ("1kB", 1000), ("1KiB", 1024), ("2MB", 2_000_000),
        ("512MiB", 512 << 20), ("10 GB", 10**10), ("1TiB", 1 << 40), ("7EiB", 7 << 60),
    ],
)  # fmt: skip
def test_sizes(value: str, bytes_: int) -> None:
    assert types.size(value) == bytes_


@pytest.mark.parametrize("value", ["lots", "-1", "1 K", "1mib", "8EiB", "1.5GB", "٣", "1GBs", "MiB"])
def test_what_is_no_size(value: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        types.size(value)


@given(st.integers(0, 2**63 - 1))
def test_a_bare_number_is_bytes(number: int) -> None:
    assert types.size(str(number)) == number


def test_memory_may_be_a_share() -> None:
    assert types.size_or_percent("50%") == Percent(50)
    assert types.size_or_percent("1kB") == 1000
    with pytest.raises(ValueError, match=r"a size.*or a percentage"):
        types.size_or_percent("101%")


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "yes", "on"])
def test_ways_to_say_yes(value: str) -> None:
    assert types.boolean(value) is True


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "off"])
def test_ways_to_say_no(value: str) -> None:
    assert types.boolean(value) is False


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((None, None), "a whole number"),
        ((1, None), "a whole number of at least 1"),
        ((None, 9), "a whole number of at most 9"),
        ((1, 9), "a whole number from 1 to 9"),
    ],
)
def test_an_integer_says_its_bounds(bounds: tuple[int | None, int | None], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        types.integer(*bounds)("1.5")


def test_the_bounds_of_an_integer_are_included() -> None:
    parse = types.integer(1, 9)
    assert (parse("1"), parse("9")) == (1, 9)
    for outside in ("0", "10"):
        with pytest.raises(ValueError, match="from 1 to 9"):
            parse(outside)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("4", CpuSet(count=4)),
        ("0-3,8", CpuSet(cpus=frozenset({0, 1, 2, 3, 8}))),
        ("2-2", CpuSet(cpus=frozenset({2}))),
        ("1,3", CpuSet(cpus=frozenset({1, 3}))),
    ],
)
def test_cpu_sets(value: str, meant: CpuSet) -> None:
    assert types.cpu_set(value) == meant


@pytest.mark.parametrize("value", ["0", "3-1", "a", "1,,2", "-1", "1-", "999999"])
def test_what_is_no_cpu_set(value: str) -> None:
    with pytest.raises(ValueError, match="0-3,8"):
        types.cpu_set(value)


@pytest.mark.parametrize("value", ["0", "0MiB", "0%", "many"])
def test_a_limit_of_memory_is_none_of_nothing(value: str) -> None:
    assert types.memory_limit("1%") == types.Percent(1)
    with pytest.raises(ValueError, match=r"^(a limit|a size)"):
        types.memory_limit(value)


@pytest.mark.parametrize("value", ["a", "[1]", "x: [", "2001-99-99", "[" * 5000])
def test_what_is_no_yaml_mapping(value: str) -> None:
    assert types.yaml_mapping("version: 2") == {"version": 2}
    assert types.yaml_mapping("#cloud-config") is None
    with pytest.raises(ValueError, match=r".+"):
        types.yaml_mapping(value)


def test_cpu_allowances() -> None:
    assert types.cpu_allowance("50%") == Allowance(percent=50)
    assert types.cpu_allowance("25ms/100ms") == Allowance(quota=25_000, period=100_000)
    assert types.cpu_allowance("200%") == Allowance(percent=200)  # twice the share of others, as in LXD
    for wrong in ("-1%", "25ms", "0ms/100ms", "25ms/0ms", "half"):
        with pytest.raises(ValueError, match="a CPU allowance"):
            types.cpu_allowance(wrong)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (":8443", ("", 8443)),
        ("10.0.0.1:8443", ("10.0.0.1", 8443)),
        ("[fd00::1]:8443", ("fd00::1", 8443)),
        ("[::]", ("::", None)),
        ("fd00::1", ("fd00::1", None)),
        ("n1.example", ("n1.example", None)),
    ],
)
def test_listen_addresses(value: str, meant: tuple[str, int | None]) -> None:
    assert types.listen_address(value) == meant


@pytest.mark.parametrize("value", [":0", ":65536", ":port", "[zz]:1", "a b:1", "10.0.0.1:", "[::1"])
def test_what_is_no_listen_address(value: str) -> None:
    with pytest.raises(ValueError, match="an address"):
        types.listen_address(value)


def test_addresses_and_networks_keep_to_their_version() -> None:
    assert types.address(4)("10.0.0.1") == "10.0.0.1"
    assert types.cidr(6)("fd00::1/64") == "fd00::1/64"
    assert types.cidr()("10.0.0.1/8") == "10.0.0.1/8"
    for parse, wrong in (
        (types.address(4), "::1"),
        (types.cidr(4), "fd00::1/64"),
        (types.cidr(), "10.0.0.1"),
    ):
        with pytest.raises(ValueError, match="address"):
            parse(wrong)


def test_disk_rates_say_what_they_count() -> None:
    assert types.disk_rate("30MB") == (30_000_000, "bytes")
    assert types.disk_rate("500iops") == (500, "iops")


def test_compressors_may_have_options_but_no_other_words() -> None:
    for right in ("none", "gzip", "zstd -19", "xz -9 --threads=2"):
        assert types.compression(right) == right
    for wrong in ("rar", "gzip; reboot", "gzip $(id)", "gzip /etc/passwd"):
        with pytest.raises(ValueError, match="a compressor"):
            types.compression(wrong)


def test_a_list_says_which_type_its_items_are() -> None:
    assert types.list_of(types.boolean)("yes, no") == (True, False)
    with pytest.raises(ValueError, match="each is a boolean"):
        types.list_of(types.boolean)("yes,perhaps")
