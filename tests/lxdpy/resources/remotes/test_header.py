"""What servers tell each other, byte by byte as protoc's code writes it, and what is no such message."""

import random

import pytest

from lxdpy.host.rsync import Features
from lxdpy.resources.remotes.header import (
    Header,
    Part,
    Verdict,
    common,
    is_verdict,
    read,
    read_verdict,
    write,
    write_verdict,
)
from lxdpy.resources.remotes.protobuf import Malformed, decode, encode, number, text, texts

PART = Part(
    "s0", {"user.x": "ä", "limits.cpu": "2"}, {"root": {"type": "disk", "path": "/"}}, ("default", "p"),
    ephemeral=True, architecture="aarch64", created_at=1.7e9, used_at=5.0, expires_at=2e9,
)  # fmt: skip
RANGE = {"Isuid": True, "Isgid": False, "Hostid": 1_000_000, "Nsid": 0, "Maprange": 2**31}
FULL = Header(
    Features(xattrs=True, delete=True, compress=True, bidirectional=True, whole=True),
    runs=True, idmap=(RANGE,), names=("s0",), snapshots=(PART,), refresh=True,
)  # fmt: skip


def test_a_header_comes_back_as_it_was_written() -> None:
    assert read(write(FULL)) == FULL
    assert read(write(Header())) == Header()


def test_an_offer_of_lxd_is_understood() -> None:
    """Of a dir pool: fs, one entry of an id map, a snapshot's name, predump, what its rsync can, index."""
    offer = bytes.fromhex("0800 1a0c 0801 1001 18c0843d 2000 2801 2202 7330 3800 4208 0801100118012001 6801")
    found = read(offer)
    assert found.features == Features(xattrs=True, delete=True, compress=True, bidirectional=True)
    assert found.idmap[0]["Hostid"] == 1_000_000
    assert (found.names, found.snapshots, found.runs, found.refresh) == (("s0",), (), False, False)


def test_a_verdict_is_as_lxd_writes_it() -> None:
    assert write_verdict(Verdict(success=True)) == bytes.fromhex("0801 1200")
    assert read_verdict(bytes.fromhex("0800 1203 6e6f21")) == Verdict(success=False, message="no!")


def test_a_verdict_in_place_of_a_header_is_known() -> None:
    assert is_verdict(write_verdict(Verdict(success=False, message="no")))
    assert not is_verdict(write(FULL))
    assert not is_verdict(write(Header()))


def test_dates_before_1970_are_none() -> None:
    """Go's time of nothing is in the year 1."""
    data = encode([(1, 0), (5, encode([(1, "s0"), (8, -62135596800), (10, -62135596800)]))])
    assert (read(data).snapshots[0].created_at, read(data).snapshots[0].expires_at) == (0.0, 0.0)


def test_only_what_both_know_is_agreed_on() -> None:
    theirs = Features(xattrs=True, compress=True, bidirectional=True)
    ours = Features(xattrs=True, delete=True, bidirectional=True, whole=True)
    assert common(theirs, ours) == Features(xattrs=True, bidirectional=True)


def test_numbers_are_signed_and_64_bits_wide() -> None:
    for value in (0, 1, 127, 128, 2**63 - 1, -1, -(2**63)):
        assert number(decode(encode([(3, value)])), 3) == value


def test_the_last_of_several_counts_and_unknown_fields_do_not() -> None:
    data = encode([(1, "a"), (99, "?"), (1, "b")]) + b"\x2d1234" + b"\x3112345678"
    assert (text(decode(data), 1), texts(decode(data), 1), texts(decode(data), 5)) == ("b", ["a", "b"], [])


@pytest.mark.parametrize(
    "data",
    [
        "08",
        "0a05 6162",
        "ffffffffffffffffffff01",
        "0b",
        "0a",
        "4202 0a",
        "220180",
        "080a 0a01 61",
        "2a03 0a0180",
    ],
)
def test_what_is_no_header_is_refused(data: str) -> None:
    with pytest.raises(Malformed):
        read(bytes.fromhex(data))


def test_noise_is_refused_or_read_and_nothing_else() -> None:
    chance = random.Random(5)
    good = write(FULL)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read(bytes(data[: chance.randrange(len(data))]))
        except Malformed:
            continue
