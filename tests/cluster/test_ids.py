"""Ids: unique, and an operation's tells whose it is."""

import re

import pytest

from cluster.errors import Invalid
from cluster.ids import member_of, new_member_id, new_request_id, operation_id


def test_member_ids_are_twelve_hex_digits_and_never_the_same() -> None:
    made = {new_member_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[0-9a-f]{12}", one) for one in made)
    assert new_request_id() != new_request_id()


def test_an_operation_is_found_at_its_member() -> None:
    member = new_member_id()
    operation = operation_id(member)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", operation)
    assert member_of(operation) == member
    assert operation_id(member) != operation


@pytest.mark.parametrize("wrong", ["", "x" * 12, "0123456789AB", "0123456789abc"])
def test_only_member_ids_make_operation_ids(wrong: str) -> None:
    with pytest.raises(Invalid, match="member id"):
        operation_id(wrong)


@pytest.mark.parametrize("wrong", ["", "nonsense", "12345678-1234-1234-1234-12345678901"])
def test_what_is_no_operation_id_is_refused(wrong: str) -> None:
    with pytest.raises(Invalid, match="operation id"):
        member_of(wrong)
