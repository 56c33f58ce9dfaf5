"""pylxd, as programs of others use it, through a member that does not have what it works on."""

import contextlib
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cluster.tls.certificates import make
from lxdpy.dev.members import Cluster

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own, at its import
    import pylxd
    from pylxd.exceptions import LXDAPIException, NotFound

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),  # likewise, of what it closes late
]


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Any]:
    socket = quote(str(cluster.members[0].socket), safe="")
    yield pylxd.Client(endpoint=f"http+unix://{socket}", timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves its sockets to be found
        gc.collect()


@pytest.fixture(scope="module")
def instance(client: Any) -> Iterator[Any]:
    """One that runs on another member."""
    source = {"type": "image", "alias": "busybox"}
    made = client.instances.create({"name": "px", "source": source}, wait=True, target="n2")
    made.start(wait=True)
    yield made
    with contextlib.suppress(NotFound):
        made.stop(force=True, wait=True)
        made.delete(wait=True)


def names(rows: Any) -> set[str]:
    return {row.name for row in rows}


def test_commands_have_their_streams_and_their_status(instance: Any) -> None:
    assert (instance.location, instance.status) == ("n2", "Running")
    done = instance.execute(["sh", "-c", "echo $A; echo err >&2; exit 3"], environment={"A": "out"})
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert instance.execute(["cat"], stdin_payload="hello").stdout == "hello"
    with pytest.raises(LXDAPIException, match="Command not found"):
        instance.execute(["/no/such"])


def test_files_go_in_and_come_out_one_by_one_and_as_trees(instance: Any, tmp_path: Path) -> None:
    instance.files.put("/root/x", b"data", mode=0o600, uid=7)
    assert instance.files.get("/root/x") == b"data"
    assert instance.execute(["stat", "-c", "%a %u", "/root/x"]).stdout == "600 7\n"
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("2")
    instance.files.recursive_put(str(tmp_path / "tree"), "/root/tree")
    (tmp_path / "back").mkdir()
    instance.files.recursive_get("/root/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/sub/file").read_text() == "2"
    instance.files.delete("/root/x")
    with pytest.raises(NotFound):
        instance.files.get("/root/x")


def test_an_instance_is_changed_stopped_published_and_renamed(client: Any, instance: Any) -> None:
    instance.config["user.b"] = "2"
    instance.save(wait=True)
    assert client.instances.get("px").config["user.b"] == "2"
    instance.freeze(wait=True)
    assert instance.status == "Frozen"
    instance.unfreeze(wait=True)
    state = instance.state()
    assert (state.status, state.cpu["usage"] > 0, "eth0" in state.network) == ("Running", True, True)
    instance.restart(force=True, wait=True)
    instance.stop(force=True, wait=True)
    image = instance.publish(wait=True)
    assert image.fingerprint in {one.fingerprint for one in client.images.all()}
    image.delete(wait=True)
    instance.rename("py", wait=True)
    assert (client.instances.exists("py"), client.instances.exists("px")) == (True, False)
    instance.rename("px", wait=True)
    instance.start(wait=True)


def test_snapshots_are_made_renamed_and_deleted(instance: Any) -> None:
    instance.snapshots.create("s0", wait=True)
    instance.snapshots.get("s0").rename("s1", wait=True)
    assert names(instance.snapshots.all()) == {"s1"}
    instance.files.put("/root/later", b"x")
    instance.stop(force=True, wait=True)
    instance.restore_snapshot("s1", wait=True)
    with pytest.raises(NotFound):
        instance.files.get("/root/later")
    instance.start(wait=True)
    instance.snapshots.get("s1").delete(wait=True)
    assert instance.snapshots.all() == []


def test_images_are_exported_uploaded_and_named(client: Any) -> None:
    (image,) = client.images.all()
    with image.export() as file:
        data = file.read()
    fingerprint = image.fingerprint
    with pytest.raises(LXDAPIException, match="same fingerprint"):
        client.images.create(data, wait=True)
    image.add_alias("mine", "for now")
    assert client.images.get_by_alias("mine").fingerprint == fingerprint
    image.delete_alias("mine")
    assert [alias["name"] for alias in client.images.get(fingerprint).aliases] == ["busybox"]
    image.properties["note"] = "kept"
    image.save(wait=True)
    assert client.images.get(fingerprint).properties["note"] == "kept"


def test_profiles_and_projects_are_made_changed_and_deleted(client: Any) -> None:
    profile = client.profiles.create("pp", config={"limits.memory": "64MiB"}, devices={})
    profile.config["user.x"] = "1"
    profile.save()
    assert client.profiles.get("pp").config == {"limits.memory": "64MiB", "user.x": "1"}
    profile.rename("pq")
    client.profiles.get("pq").delete()
    assert not client.profiles.exists("pq")
    project = client.projects.create("proj", description="d", config={"features.images": "false"})
    project.description = "e"
    project.save()
    assert client.projects.get("proj").description == "e"
    project.delete()
    assert names(client.projects.all()) == {"default"}


def test_networks_pools_and_volumes(client: Any) -> None:
    network = client.networks.get("lxdbr0")
    assert (network.managed, network.config["ipv4.nat"]) == (True, "false")
    assert network.state().addresses
    pool = client.storage_pools.get("default")
    assert (pool.driver, pool.resources.get().space["total"] > 0) == ("dir", True)
    volume = pool.volumes.create({"name": "vol", "type": "custom", "config": {}}, wait=True)
    volume.config["user.a"] = "1"
    volume.save(wait=True)
    assert pool.volumes.get("custom", "vol").config["user.a"] == "1"
    volume.delete()
    assert "vol" not in names(pool.volumes.all())


def test_the_cluster_and_whom_it_trusts(client: Any) -> None:
    assert client.cluster.get().enabled
    assert {member.server_name for member in client.cluster.members.all()} == {"n1", "n2", "n3"}
    assert client.host_info["environment"]["server"] == "lxd"
    assert client.trusted
    certificate, _ = make("guest")
    client.certificates.create("", certificate.encode(), cert_type="client", name="guest")
    (guest,) = (row for row in client.certificates.all() if row.type == "client")
    assert (guest.name, guest.certificate) == ("guest", certificate)
    guest.delete()
    assert {row.type for row in client.certificates.all()} == {"server"}
