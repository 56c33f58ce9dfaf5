import pytest

from cluster.errors import KINDS, Conflict
from lxdpy.rest.errors import STATUS, error_of, kind_of, status_of


def test_every_kind_has_a_status() -> None:
    assert STATUS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"already-exists", "exhausted"}))
def test_a_kind_survives_the_way_through_http(kind: str) -> None:
    assert kind_of(status_of(KINDS[kind]("x"))) == kind


def test_a_status_of_two_kinds_is_read_as_the_general_one() -> None:
    assert isinstance(error_of(409, "x"), Conflict)
    assert kind_of(503) == "unavailable"
    assert kind_of(418) == "internal"


def test_a_special_error_has_the_status_of_its_kind() -> None:
    class Raced(Conflict):
        pass

    assert status_of(Raced("x")) == 409
