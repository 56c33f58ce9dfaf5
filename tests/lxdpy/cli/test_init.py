from typing import Any

import pytest
import yaml

from cluster.errors import Invalid
from cluster.membership.tokens import JoinToken
from lxdpy.cli.preseed import read
from tests.lxdpy.cli.server import Asked, Begun, Cli, Refusal

EMPTY: dict[str, Any] = {
    "GET /1.0": {"config": {}},
    "GET /1.0/storage-pools": [],
    "GET /1.0/networks": [{"name": "eth0", "managed": False}],
    "GET /1.0/profiles/default": {"description": "Default", "config": {}, "devices": {}},
    "GET /1.0/cluster": {"enabled": False, "server_name": ""},
}
DEVICES = {
    "root": {"type": "disk", "path": "/", "pool": "default"},
    "eth0": {"type": "nic", "name": "eth0", "network": "lxdpybr0"},
}
POOL = {"name": "default", "driver": "dir", "description": "", "config": {"source": "/x"}}
BRIDGE = {
    "name": "lxdpybr0", "type": "bridge", "managed": True, "description": "",
    "config": {"ipv4.address": "10.1.1.1/24", "ipv4.nat": "true", "volatile.network": "x"},
}  # fmt: skip
FURNISHED: dict[str, Any] = {
    "GET /1.0": {"config": {"core.https_address": "10.0.0.1:8443", "core.trust_password": True}},
    "GET /1.0/storage-pools": [POOL],
    "GET /1.0/networks": [BRIDGE, {"name": "eth0", "managed": False}],
    "GET /1.0/profiles/default": {"description": "", "config": {}, "devices": DEVICES},
    "GET /1.0/profiles": [
        {"name": "default", "description": "", "config": {}, "devices": DEVICES, "used_by": ["x"]}
    ],
    "GET /1.0/projects": [
        {"name": "default", "description": "", "config": {"features.images": "true"}, "used_by": []}
    ],
}


@pytest.fixture
def empty(lxdpy: Cli) -> Cli:
    lxdpy.server.answers.update(EMPTY)
    return lxdpy


def test_auto_makes_pool_network_and_profile(empty: Cli) -> None:
    empty.ok("init", "--auto")
    nat = {"ipv4.address": "auto", "ipv4.nat": "true"}
    assert empty.server.changes() == [
        Asked("POST", "/1.0/storage-pools", {"name": "default", "driver": "dir", "description": ""}),
        Asked(
            "POST",
            "/1.0/networks?project=default",
            {"name": "lxdpybr0", "type": "bridge", "description": "", "config": nat},
        ),
        Asked("PUT", "/1.0/profiles/default", {"description": "Default", "config": {}, "devices": DEVICES}),
    ]


def test_auto_configures_what_is_asked_for(empty: Cli) -> None:
    empty.ok(
        "init", "--auto", "--network-address", "::1", "--network-port", "9000",
        "--storage-backend", "btrfs", "--trust-password", "secret",
    )  # fmt: skip
    configured, pool, *_ = empty.server.changes()
    assert configured == Asked(
        "PATCH", "/1.0", {"config": {"core.https_address": "[::1]:9000", "core.trust_password": "secret"}}
    )
    assert pool.body["driver"] == "btrfs"


def test_auto_changes_nothing_the_second_time(lxdpy: Cli) -> None:
    lxdpy.server.answers.update(FURNISHED)
    lxdpy.ok("init", "--auto")
    assert lxdpy.server.changes() == []


def test_auto_uses_what_is_there_under_other_names(empty: Cli) -> None:
    empty.server.answers["GET /1.0/storage-pools"] = [{**POOL, "name": "fast"}]
    empty.server.answers["GET /1.0/networks"] = [{**BRIDGE, "name": "lan"}]
    empty.ok("init", "--auto")
    (profile,) = empty.server.changes()
    assert profile.body["devices"]["root"]["pool"] == "fast"
    assert profile.body["devices"]["eth0"]["network"] == "lan"


def test_what_was_done_is_undone_when_a_step_fails(empty: Cli) -> None:
    empty.server.answers["PUT /1.0/profiles/default"] = Refusal(400, "No such device")
    said = empty.fails("init", "--auto", "--network-address", "10.0.0.1")
    assert said == "Error: No such device"
    undone = [(one.method, one.path) for one in empty.server.changes()][-4:]
    assert undone == [
        ("PUT", "/1.0/profiles/default"),
        ("DELETE", "/1.0/networks/lxdpybr0?project=default"),
        ("DELETE", "/1.0/storage-pools/default"),
        ("PATCH", "/1.0"),
    ]
    assert empty.server.changes()[-1].body == {"config": {"core.https_address": ""}}


def test_what_cannot_be_undone_is_said_without_hiding_the_reason(empty: Cli) -> None:
    empty.server.answers["POST /1.0/networks"] = Refusal(400, "No bridges here")
    empty.server.answers["DELETE /1.0/storage-pools/default"] = Refusal(500, "Busy")
    result = empty.run("init", "--auto")
    assert "Could not be undone: DELETE /1.0/storage-pools/default: Busy" in result.stderr
    assert result.stderr.endswith("Error: No bridges here\n")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--auto", "--dump"],
        ["--preseed", "--trust-password", "x"],
        ["--dump", "--network-address", "x"],
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(lxdpy: Cli, words: list[str]) -> None:
    lxdpy.fails("init", *words, status=2)
    assert lxdpy.server.asked == []


def test_a_dump_leaves_out_what_is_not_to_be_set(lxdpy: Cli) -> None:
    lxdpy.server.answers.update(FURNISHED)
    dumped = yaml.safe_load(lxdpy.ok("init", "--dump"))
    assert list(dumped) == ["config", "networks", "storage_pools", "profiles", "projects"]
    assert dumped["networks"] == [
        {
            "name": "lxdpybr0", "type": "bridge", "description": "", "project": "default",
            "config": {"ipv4.address": "10.1.1.1/24", "ipv4.nat": "true"},
        }
    ]  # fmt: skip
    assert "used_by" not in dumped["profiles"][0]


def test_a_dump_is_a_preseed(lxdpy: Cli) -> None:
    lxdpy.server.answers.update(FURNISHED)
    dumped = lxdpy.ok("init", "--dump")
    seed = read(dumped)
    assert seed.config == {"core.https_address": "10.0.0.1:8443", "core.trust_password": "true"}
    assert seed.profiles is not None
    assert seed.profiles[0].devices == DEVICES
    for name in ("storage-pools/default", "networks/lxdpybr0", "projects/default"):
        kind, _, _ = name.partition("/")
        lxdpy.server.answers[f"GET /1.0/{name}"] = FURNISHED[f"GET /1.0/{kind}"][0]
    lxdpy.ok("init", "--preseed", stdin=dumped)
    assert [one.path for one in lxdpy.server.changes()] == ["/1.0"]


def test_values_are_taken_as_they_are_written() -> None:
    seed = read("config: {core.trust_password: 007, user.version: 1.10, images.auto_update_cached: yes}")
    assert seed.config == {
        "core.trust_password": "007",
        "user.version": "1.10",
        "images.auto_update_cached": "yes",
    }
    assert read("cluster: {enabled: true, server_name: n1}").cluster is not None
    assert read("networks: null\nprofiles:\nstorage_pools: []").profiles is None
    assert read("") == read("{}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("storage_pools: [{name: a}]", "driver"),
        ("storage_pool: []", "storage_pool"),
        ("networks: [{name: a, typ: bridge}]", "typ"),
        ("config: [a]", "$.config"),
        ("cluster: {enabled: maybe}", "$.cluster.enabled"),
        ("a: [", "not YAML"),
        ("config: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_bad_preseed_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(text)
    assert words in refused.value.message


def test_what_exists_is_added_to(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/profiles/default"] = {
        "description": "mine",
        "config": {"limits.cpu": "2"},
        "devices": DEVICES,
    }
    seed = """
    profiles:
    - name: default
      config: {limits.memory: 1GiB}
      devices:
        root: {size: 10GiB}
    """
    lxdpy.ok("init", "--preseed", stdin=seed)
    (put,) = lxdpy.server.changes()
    assert put.body == {
        "description": "mine",
        "config": {"limits.cpu": "2", "limits.memory": "1GiB"},
        "devices": {**DEVICES, "root": {**DEVICES["root"], "size": "10GiB"}},
    }


def test_a_subnet_that_was_chosen_is_not_chosen_again(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/networks/lxdpybr0"] = BRIDGE
    lxdpy.ok("init", "--preseed", stdin="networks: [{name: lxdpybr0, config: {ipv4.address: auto}}]")
    assert lxdpy.server.changes() == []


def test_a_network_of_a_project_is_made_there(lxdpy: Cli) -> None:
    lxdpy.ok("init", "--preseed", stdin="networks: [{name: lan, project: lab}]")
    (post,) = lxdpy.server.changes()
    assert post == Asked("POST", "/1.0/networks?project=lab", {"name": "lan", "type": "", "description": ""})


def test_an_interface_of_that_name_is_not_taken_for_the_network(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/networks/br0"] = {"managed": False, "config": {}, "description": ""}
    lxdpy.server.answers["POST /1.0/networks"] = Refusal(409, "The network already exists")
    said = lxdpy.fails("init", "--preseed", stdin="networks: [{name: br0}]")
    assert said == "Error: The network already exists"


def test_a_pool_of_another_driver_is_a_conflict(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/storage-pools/default"] = POOL
    said = lxdpy.fails("init", "--preseed", stdin="storage_pools: [{name: default, driver: btrfs}]")
    assert said == 'Error: Storage pool "default" is there with driver "dir"'


def test_clustering_is_enabled_last(empty: Cli) -> None:
    empty.server.answers["PUT /1.0/cluster"] = Begun({})
    seed = "config: {core.https_address: 10.0.0.1}\ncluster: {server_name: n1, enabled: true}"
    empty.ok("init", "--preseed", stdin=seed)
    assert empty.server.changes()[-1] == Asked("PUT", "/1.0/cluster", {"server_name": "n1", "enabled": True})


def test_clustering_that_is_on_is_left_alone(empty: Cli) -> None:
    empty.server.answers["GET /1.0/cluster"] = {"enabled": True, "server_name": "n1"}
    empty.ok("init", "--preseed", stdin="cluster: {server_name: n1, enabled: true}")
    assert empty.server.changes() == []


def test_a_token_names_the_member_that_joins(empty: Cli) -> None:
    token = JoinToken("n2", "ab" * 32, ["10.0.0.1:8443"], "cd" * 32).printed()
    seed = f"""
    cluster:
      enabled: true
      server_address: 10.0.0.2:8443
      cluster_token: {token}
      member_config:
      - {{entity: storage-pool, name: default, key: source, value: ""}}
    """
    empty.ok("init", "--preseed", stdin=seed)
    (put,) = empty.server.changes()
    assert (put.body["server_name"], put.body["cluster_token"]) == ("n2", token)
    assert put.body["member_config"][0]["key"] == "source"


def test_who_joins_cannot_bring_what_the_cluster_decides(empty: Cli) -> None:
    for section, named in (
        ("storage_pools: [{name: a, driver: dir}]", "storage_pools"),
        ("config: {core.trust_password: x}", "core.trust_password"),
    ):
        seed = f"{section}\ncluster: {{enabled: true, server_name: n2, cluster_address: '10.0.0.1:8443'}}"
        assert empty.fails("init", "--preseed", stdin=seed).endswith(f"leave out {named}")
    assert empty.server.changes() == []


def test_the_certificate_can_be_a_file(empty: Cli, tmp_path: Any) -> None:
    (tmp_path / "cluster.crt").write_text("PEM")
    seed = (
        "cluster: {enabled: true, server_name: n2, cluster_address: '10.0.0.1:8443', cluster_password: s, "
        f"cluster_certificate_path: {tmp_path}/cluster.crt}}"
    )
    empty.ok("init", "--preseed", stdin=seed)
    body = empty.server.changes()[-1].body
    assert (body["cluster_certificate"], "cluster_certificate_path" in body) == ("PEM", False)
    missing = empty.fails("init", "--preseed", stdin=seed.replace("cluster.crt", "none.crt"))
    assert missing == f"Error: {tmp_path}/none.crt: No such file or directory"
