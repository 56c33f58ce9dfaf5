"""What an instance has in the end: its profiles' one after the other, and its own over all."""

from hypothesis import given
from hypothesis import strategies as st

from lxdpy.resources.instances.expand import expand, expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import PROJECTS, Project
from tests.effort import examples
from tests.lxdpy.fakes import LocalStore
from tests.lxdpy.resources.instances.scene import ROOT, instance, ready_store

CONFIGS = st.dictionaries(st.sampled_from(["user.a", "user.b", "user.c"]), st.sampled_from("xyz"))
DEVICES = st.dictionaries(
    st.sampled_from(["root", "eth0"]), st.fixed_dictionaries({"type": st.just("none"), "n": st.text("ab")})
)


@examples(40)
@given(st.lists(st.tuples(CONFIGS, DEVICES), max_size=4), CONFIGS, DEVICES)
def test_the_last_that_says_something_wins(
    profiles: list[tuple[dict[str, str], dict[str, dict[str, str]]]],
    config: dict[str, str],
    devices: dict[str, dict[str, str]],
) -> None:
    layers = [*profiles, (config, devices)]
    rows = [Profile("default", str(n), config=c, devices=d) for n, (c, d) in enumerate(profiles)]
    found = expand(rows, config, devices)
    for part in (0, 1):
        assert set(found[part]) == {name for layer in layers for name in layer[part]}
        for name, value in found[part].items():
            assert value == [layer[part][name] for layer in layers if name in layer[part]][-1], "as a whole"


def profile(store: LocalStore, name: str, project: str = "default", **config: str) -> None:
    row = Profile(project, name, config=config)
    store.put(PROFILES, row.key, row)


def test_a_number_of_gpus_is_a_device_wherever_it_is_said() -> None:
    store = ready_store()
    profile(store, "two", **{"limits.gpu": "2", "gpu.match": "vendor=amd"})
    row = instance(store, "c1", profiles=("two",), config={"limits.gpu": "1"})
    config, devices = expanded(store.state, row)
    assert devices == {"root": ROOT, "gpu": {"type": "gpu", "count": "1", "match": "vendor=amd"}}
    assert config["limits.gpu"] == "1"


def test_a_list_does_not_fail_for_one_row() -> None:
    store = ready_store()
    clash = {"root": ROOT, "gpu": {"type": "none"}}
    row = instance(store, "c1", profiles=("default", "gone"), config={"limits.gpu": "1"}, devices=clash)
    assert expanded(store.state, row) == ({"limits.gpu": "1"}, clash)


def test_a_project_has_its_own_profiles_only_if_it_says_so() -> None:
    store = ready_store()
    profile(store, "p1", user="default's")
    profile(store, "p1", "lab", user="lab's")
    row = Instance("lab", "c1", "u", "m", profiles=("p1",))
    store.put(PROJECTS, "lab", Project("lab"))
    assert expanded(store.state, row)[0] == {"user": "default's"}
    store.put(PROJECTS, "lab", Project("lab", config={"features.profiles": "true"}))
    assert expanded(store.state, row)[0] == {"user": "lab's"}
