import struct
from ipaddress import ip_address

import pytest

from lxdpy.host.network.probe import ARP, IPV6, NEIGHBOUR, question, told_of

OWN = bytes.fromhex("00163e010203")


def test_an_ipv4_address_is_asked_for_by_nobody() -> None:
    packet, to = question(ip_address("10.1.2.3"), OWN)
    assert to == b"\xff" * 6
    assert packet.hex() == "0001080006040001" + "00163e010203" + "00000000" + "000000000000" + "0a010203"


def test_an_ipv6_address_is_asked_for_in_its_own_group() -> None:
    packet, to = question(ip_address("fd00::aabb:ccdd"), OWN)
    assert to == bytes.fromhex("3333ffbbccdd")
    head, body = packet[: IPV6.size], packet[IPV6.size :]
    assert head[8:24] == bytes(16)
    assert head[24:] == ip_address("ff02::1:ffbb:ccdd").packed
    assert NEIGHBOUR.unpack(body)[4] == ip_address("fd00::aabb:ccdd").packed
    counted = head[8:] + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(counted) // 2}H", counted))
    assert total % 0xFFFF == 0  # as a receiver checks it


@pytest.mark.parametrize("what", [1, 2])
def test_whoever_says_that_he_has_an_ipv4_address_is_heard(what: int) -> None:
    sender = ip_address("10.1.2.3")
    packet = ARP.pack(1, 0x0800, 6, 4, what, OWN, sender.packed, bytes(6), ip_address("10.1.2.9").packed)
    assert told_of(packet + bytes(18)) == sender


@pytest.mark.parametrize(
    ("kind", "hops", "heard"), [(136, 255, "fd00::1"), (135, 255, None), (136, 64, None)]
)
def test_only_answers_of_neighbours_are_heard(kind: int, hops: int, heard: str | None) -> None:
    target = ip_address("fd00::1").packed
    packet = IPV6.pack(6 << 28, 24, 58, hops, target, target) + NEIGHBOUR.pack(kind, 0, 0, 0, target)
    assert told_of(packet) == (ip_address(heard) if heard else None)


def test_what_is_cut_short_or_something_else_says_nothing() -> None:
    for packet in (b"", bytes(10), bytes(100), b"\x00\x01\x08\x00\x06\x04", b"\x60" + bytes(70)):
        assert told_of(packet) is None
