"""Metadata and templates of instances, through a member that does not own them, and what they become."""

import json
from collections.abc import Iterator

import pytest
import yaml

from integration import harness
from integration.harness import lxc, lxc_json, lxc_try
from integration.instances import busybox, clear, failure, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = pytest.mark.root

HOSTNAME = "{{ container.name }}\n"
SEED = '{{ config_get("cloud-init.user-data", config_get("user.user-data", properties.default)) }}'
NETWORK = '{% if config_get("user.network-config", "") == "" %}dhcp{% else %}mine{% endif %} {{ trigger }}\n'
SEED_FOLDER = "/var/lib/cloud/seed/nocloud-net"
TEMPLATES = {
    "/etc/hostname": {"template": "hostname.tpl", "when": ["create", "copy", "rename"]},
    f"{SEED_FOLDER}/user-data": {
        "template": "cloud-init-user.tpl", "when": ["create", "copy"],
        "properties": {"default": "#cloud-config\n{}\n"},
    },
    "/etc/network-kind": {"template": "network.tpl", "when": ["start"]},
    "/etc/once": {"template": "hostname.tpl", "when": ["start"], "create_only": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with harness.running(members=2, gpus=0) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def owner(cluster: Cluster) -> Iterator[Member]:
    """Of `c1`, which is stopped and has templates."""
    own, other = cluster.members
    lxc(other, "init", "busybox", "c1", "--target", own.name)
    for name, text in (("hostname.tpl", HOSTNAME), ("cloud-init-user.tpl", SEED), ("network.tpl", NETWORK)):
        lxc(other, "config", "template", "create", "c1", name)
        lxc(other, "config", "template", "edit", "c1", name, stdin=text)
    metadata = yaml.safe_load(lxc(other, "config", "metadata", "show", "c1"))
    metadata["templates"] = TEMPLATES
    lxc(other, "config", "metadata", "edit", "c1", stdin=yaml.safe_dump(metadata))
    yield own
    clear(other)


@pytest.fixture
def other(cluster: Cluster) -> Member:
    return cluster.members[1]


def test_metadata_and_templates_are_shown_and_changed_through_any_member(
    owner: Member, other: Member
) -> None:
    shown = yaml.safe_load(lxc(other, "config", "metadata", "show", "c1"))
    assert shown["properties"]["os"] == "BusyBox"
    assert shown["templates"]["/etc/once"] == {
        "create_only": True, "properties": {}, "template": "hostname.tpl", "when": ["start"]
    }  # fmt: skip
    listed = lxc_json(other, "config", "template", "list", "c1")
    assert listed == ["cloud-init-user.tpl", "hostname.tpl", "network.tpl"]
    assert lxc(owner, "config", "template", "show", "c1", "hostname.tpl") == HOSTNAME
    lxc(other, "config", "template", "delete", "c1", "network.tpl")
    assert "network.tpl" in failure(other, "config", "template", "show", "c1", "network.tpl")
    other.ask("PATCH", "/1.0/instances/c1/metadata", {"properties": {"serial": "7"}})
    patched = other.ask("GET", "/1.0/instances/c1/metadata")
    assert (patched["properties"]["serial"], patched["properties"]["os"]) == ("7", "BusyBox")
    assert patched["templates"].keys() == TEMPLATES.keys()


def test_bad_metadata_is_refused_and_changes_nothing(owner: Member, other: Member) -> None:
    before = other.ask("GET", "/1.0/instances/c1/metadata")
    for path, template in (("/../x", "hostname.tpl"), ("/etc/x", "../hostname.tpl")):
        wrong = before | {"templates": {path: {"template": template, "when": ["start"]}}}
        said = failure(other, "query", "-X", "PUT", "-d", json.dumps(wrong), "/1.0/instances/c1/metadata")
        assert path in said or template in said
    assert "Invalid template filename" in failure(other, "config", "template", "create", "c1", "../../x")
    assert other.ask("GET", "/1.0/instances/c1/metadata") == before


def test_templates_become_files_when_they_are_due(owner: Member, other: Member) -> None:
    lxc(other, "config", "set", "c1", "user.user-data=old", "cloud-init.user-data=#cloud-config\nnew: 1")
    lxc(other, "start", "c1")
    assert sh(other, "c1", f"cat /etc/hostname {SEED_FOLDER}/user-data") == "c1\n#cloud-config\nnew: 1"
    assert sh(other, "c1", "stat -c '%u %g %a' /etc/hostname /var/lib/cloud") == "0 0 644\n0 0 755\n"
    assert sh(other, "c1", "cat /etc/network-kind /etc/once") == "dhcp start\nc1\n"
    sh(other, "c1", "echo mine > /etc/once; echo mine > /etc/hostname; chmod 600 /etc/hostname")
    lxc(other, "config", "set", "c1", "user.network-config=x")
    lxc(other, "restart", "--force", "c1")
    assert sh(other, "c1", "cat /etc/network-kind /etc/once /etc/hostname") == "mine start\nmine\nmine\n"
    lxc(other, "stop", "--force", "c1")
    lxc(other, "copy", "c1", "c2")
    lxc(other, "rename", "c1", "c3")
    lxc(other, "start", "c2", "c3")
    assert sh(other, "c2", "cat /etc/hostname") == "c2\n"
    assert sh(other, "c3", "cat /etc/hostname; stat -c %a /etc/hostname") == "c3\n600\n"
    assert "volatile.apply_template" not in other.ask("GET", "/1.0/instances/c3")["config"]


def test_a_template_leaves_the_root_by_no_link(owner: Member, other: Member) -> None:
    lxc(other, "start", "c1")
    sh(other, "c1", "rm /etc/network-kind; ln -s /etc/shadow /etc/network-kind; mkdir /deep")
    lxc(other, "restart", "--force", "c1")
    assert sh(other, "c1", "cat /etc/network-kind; grep -c root /etc/shadow") == "dhcp start\n1\n"
    sh(other, "c1", "rm -r /etc/network-kind /etc/once; mkfifo /etc/network-kind; ln -s /../../.. /etc/out")
    lxc(other, "restart", "--force", "c1")
    assert sh(other, "c1", "cat /etc/network-kind") == "dhcp start\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% include '/etc/shadow' %}", "network.tpl"),
        ("{{ nothing() }}", "network.tpl"),
        ("{% for a in container.name|ljust:99999 %}{% for b in container.name|ljust:99999 %}"
         "{% endfor %}{% endfor %}", "too much time or memory"),
    ],
)  # fmt: skip
def test_a_bad_template_fails_the_start_and_says_so(
    owner: Member, other: Member, text: str, why: str
) -> None:
    lxc(other, "config", "template", "edit", "c1", "network.tpl", stdin=text)
    done = lxc_try(other, "start", "c1")
    assert why in done.err
    assert other.ask("GET", "/1.0/instances/c1")["status"] == "Stopped"
    lxc(other, "config", "template", "edit", "c1", "network.tpl", stdin="well")
    lxc(other, "start", "c1")
    assert sh(other, "c1", "cat /etc/network-kind /etc/hostname") == "wellc1\n"
