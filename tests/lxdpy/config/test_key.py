import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Invalid
from lxdpy.config.key import BadValue, Key, KeyTable, UnknownKey
from lxdpy.config.types import boolean, integer, size

TABLE = KeyTable(
    "thing",
    [
        Key(name="count", doc="How many.", parse=integer(1, 9), default="1"),
        Key(name="secret", doc="Not to be seen.", parse=integer(1, 9), secret=True),
        Key(name="parent", doc="Below which.", per_member=True),
        Key(name="user.*", doc="Anything."),
        Key(name="user.size", doc="Not anything.", parse=size),
        Key(name="tunnel.*.id", doc="A number.", parse=integer(0, 9)),
        Key(name="tunnel.*.on.*", doc="A switch.", parse=boolean),
    ],
)


def test_an_unknown_key_is_refused_in_lxds_words() -> None:
    with pytest.raises(UnknownKey, match=r"^Unknown configuration key: colour$"):
        TABLE.check({"colour": "red"})


def test_only_known_keys_can_be_unset() -> None:
    assert TABLE.checked({"count": "3", "parent": ""}) == {"count": "3"}
    assert TABLE.checked(None) == {}
    with pytest.raises(UnknownKey, match="colour"):
        TABLE.checked({"colour": ""})


def test_a_bad_value_is_refused_with_key_value_and_what_would_be_right() -> None:
    with pytest.raises(BadValue) as refusal:
        TABLE.check({"count": "ten"})
    assert refusal.value.message == 'Invalid value for count: "ten" is not a whole number from 1 to 9'
    assert refusal.value.facts == {"key": "count"}
    assert isinstance(refusal.value, Invalid)


def test_the_value_of_a_secret_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(BadValue) as refusal:
        TABLE.check({"secret": "hunter2"})
    assert "hunter2" not in f"{refusal.value.message}{refusal.value.facts}"
    assert refusal.value.__suppress_context__


def test_an_empty_value_is_unset_whatever_the_type() -> None:
    TABLE.check({"count": "", "user.size": ""})
    assert TABLE.parsed({"count": ""}, "count") == 1
    assert TABLE.parsed({"parent": ""}, "parent") is None


def test_parsed_gives_the_value_or_else_the_default() -> None:
    assert TABLE.parsed({"count": "3"}, "count") == 3
    assert TABLE.parsed({}, "count") == 1
    assert TABLE.parsed({}, "user.colour") is None
    assert TABLE.defaults == {"count": "1"}
    assert TABLE.default("count") == "1"
    with pytest.raises(UnknownKey):
        TABLE.default("colour")


@pytest.mark.parametrize("name", ["user.colour", "user.a.b.c", "tunnel.x.id", "tunnel.x.on.a.b"])
def test_a_wildcard_covers(name: str) -> None:
    assert TABLE.find(name)


@pytest.mark.parametrize(
    "name", ["user", "user.", "users.a", "tunnel.id", "tunnel.x.y.id", "tunnel..id", "tunnel.x.on", "xuser.a"]
)
def test_a_wildcard_does_not_cover(name: str) -> None:
    assert TABLE.find(name) is None


def test_a_plain_name_goes_before_a_wildcard() -> None:
    with pytest.raises(BadValue):
        TABLE.check({"user.size": "large"})


def test_a_star_alone_covers_everything() -> None:
    anything = KeyTable("free", [Key(name="*", doc="Anything.")])
    anything.check({"a": "1", "a.b.c": "2"})


def test_a_key_that_stands_twice_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="twice"):
        KeyTable("double", [Key(name="a", doc="A."), Key(name="a", doc="B.")])


def test_joined_tables_take_the_keys_of_both_and_the_second_wins() -> None:
    driver = KeyTable("driver", [Key(name="count", doc="Large.", parse=integer(100))])
    both = TABLE | driver
    both.check({"count": "200", "parent": "eth0"})
    assert both.name == "thing"
    with pytest.raises(BadValue):
        both.check({"count": "2"})


def test_a_secret_shows_as_true_and_the_unset_not_at_all() -> None:
    shown = TABLE.shown({"secret": "5", "count": "2", "parent": "", "gone": "x"})
    assert shown == {"secret": "true", "count": "2", "gone": "x"}


def test_local_keeps_what_differs_between_members() -> None:
    assert TABLE.local({"parent": "eth0", "count": "1", "gone": "x"}) == {"parent": "eth0"}


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_whatever_the_config_it_passes_or_is_refused(config: dict[str, str]) -> None:
    try:
        TABLE.check(config)
    except Invalid as found:
        refusal = found
    else:
        return
    assert refusal.facts["key"] in config
