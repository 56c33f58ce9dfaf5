import msgspec

from cluster.membership.model import MEMBERS
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.rendered import Rendered
from lxdpy.resources.profiles.model import PROFILES, Profile
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.instances.scene import instance, ready_store

STATE = msgspec.Raw(b'{"pid":7}')


def shown(rendered: Rendered, store: LocalStore, row: Instance) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode(rendered.instance(store.state, row))
    return found


def test_what_has_not_changed_is_not_encoded_again() -> None:
    store, rendered = ready_store(), Rendered()
    row = instance(store, "c1", config={"user.x": "1"})
    first = rendered.instance(store.state, row)
    instance(store, "c2")
    assert rendered.instance(store.state, row) is first
    rendered.forget(row.key)
    again = rendered.instance(store.state, row)
    assert again is not first
    assert again == first


def test_whatever_it_is_made_of_may_change() -> None:
    store, rendered = ready_store(), Rendered()
    row = instance(store, "c1")
    assert shown(rendered, store, row)["expanded_config"] == {}
    profile = Profile("default", "default", config={"user.x": "1"})
    store.put(PROFILES, profile.key, profile)
    assert shown(rendered, store, row)["expanded_config"] == {"user.x": "1"}
    member = store.state.get(MEMBERS, MEMBER_ID)
    store.put(MEMBERS, MEMBER_ID, msgspec.structs.replace(member, name="n1"))
    assert shown(rendered, store, row)["location"] == "n1"
    row = msgspec.structs.replace(row, status="Running")
    assert (shown(rendered, store, row)["status"], shown(rendered, store, row)["status_code"]) == (
        "Running",
        103,
    )


def test_another_of_the_same_name_is_another() -> None:
    store, rendered = ready_store(), Rendered()
    shown(rendered, store, instance(store, "c1", description="the first"))
    second = instance(store, "c1", uuid="other", description="the second")
    assert shown(rendered, store, second)["description"] == "the second"


def test_the_full_form_is_the_short_one_with_state_and_snapshots() -> None:
    store, rendered = ready_store(), Rendered()
    row = instance(store, "c1")
    full = msgspec.json.decode(rendered.full(store.state, row, STATE))
    extra = {"backups": None, "state": {"pid": 7}, "snapshots": None}
    assert full == {**shown(rendered, store, row), **extra}


def test_times_that_never_were_are_shown_as_lxd_does() -> None:
    store = ready_store()
    row = instance(store, "c1", created_at=1_800_000_000.0)
    found = shown(Rendered(), store, row)
    assert (found["created_at"], found["last_used_at"]) == ("2027-01-15T08:00:00Z", "1970-01-01T00:00:00Z")
    store.put(INSTANCES, row.key, None)
