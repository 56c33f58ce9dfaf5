"""Choosing free private subnets."""

from ipaddress import ip_interface
from random import Random

import pytest

from cluster.errors import Exhausted
from lxdpy.host.network.subnets import choose_ipv4, choose_ipv6, completed


def test_the_choice_is_a_private_24_and_a_unique_local_64() -> None:
    four, six = ip_interface(choose_ipv4(Random(1), [])), ip_interface(choose_ipv6(Random(1), []))
    assert (four.network.prefixlen, six.network.prefixlen) == (24, 64)
    assert four.network.is_private
    assert str(four.ip).startswith("10.")
    assert str(four.ip).endswith(".1")
    assert six.network.is_private
    assert str(six.ip).startswith("fd42:")
    assert str(six.ip).endswith("::1")


def test_a_used_subnet_is_passed_over() -> None:
    first = choose_ipv4(Random(1), [])
    assert choose_ipv4(Random(1), [first]) != first
    assert choose_ipv4(Random(1), ["192.168.0.0/16", "fd42::1/64"]) == first
    half = choose_ipv4(Random(1), ["10.0.0.0/9"])
    assert int(half.split(".")[1]) >= 128


def test_there_may_be_nothing_left() -> None:
    with pytest.raises(Exhausted, match=r"ipv4\.address"):
        choose_ipv4(Random(1), ["10.0.0.0/8"])


def test_a_chosen_subnet_gets_nat_and_a_given_one_does_not() -> None:
    made = completed({"ipv6.address": "fd99::1/64"}, Random(1), [])
    assert made["ipv4.address"].endswith(".1/24")
    assert made["ipv4.nat"] == "true"
    assert made["ipv6.address"] == "fd99::1/64"
    assert "ipv6.nat" not in made


def test_what_is_said_stays() -> None:
    said = {"ipv4.address": "auto", "ipv4.nat": "false", "ipv6.address": "none"}
    made = completed(said, Random(1), [])
    assert made["ipv4.nat"] == "false"
    assert made["ipv6.address"] == "none"
    assert said["ipv4.address"] == "auto"


def test_the_same_dice_give_the_same_subnet() -> None:
    assert completed({}, Random(3), []) == completed({}, Random(3), [])
