import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Invalid
from lxdpy.resources.instances import names
from lxdpy.resources.instances.names import check_name, pet_name
from tests.effort import examples


@examples(40)
@given(st.from_regex(r"[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?", fullmatch=True))
def test_host_names_are_allowed(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "1c", "-c", "c-", "c_1", "c.1", "c 1", "c/1", "ü", "c1\n", "x" * 64, "c1;reboot", ".."]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="Invalid instance name"):
        check_name(name)


def test_made_up_names_are_new_allowed_and_never_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ADJECTIVES", ("calm", "keen"))
    monkeypatch.setattr(names, "ANIMALS", ("cod",))
    taken: set[str] = set()
    for _ in range(20):
        name = pet_name(taken)
        check_name(name)
        assert name not in taken
        taken.add(name)
    assert {"calm-cod", "keen-cod"} < taken
