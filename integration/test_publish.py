"""Images made of instances and snapshots by the stock client, through a member that does not have them."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_json
from integration.instances import clear, failure, instance, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

# Owners, modes, links, attributes, and that one is gone.
MARKS = """
cd /root; echo one >f; chown 5:6 f; chmod 4751 f; ln f twin; ln -s /etc/passwd link; mkfifo pipe
mkdir -p d/e; chmod 1777 d; rm -rf /etc/group"""
SHOWN = (
    "cd /root; cat f; find . | sort | xargs stat -c '%n %f %u:%g'; [ f -ef twin ] && echo same; ls /etc/group"
)


@pytest.fixture
def members(cluster: Cluster) -> Iterator[list[Member]]:
    yield cluster.members
    first = cluster.members[0]
    clear(first)
    for image in lxc_json(first, "image", "list"):
        if not any(alias["name"] == "busybox" for alias in image["aliases"] or []):
            lxc(first, "image", "delete", image["fingerprint"])


def image(member: Member, alias: str) -> dict[str, Any]:
    target = member.ask("GET", f"/1.0/images/aliases/{alias}")["target"]
    found: dict[str, Any] = member.ask("GET", f"/1.0/images/{target}")
    return found


def test_an_instance_becomes_an_image(members: list[Member], tmp_path: Path) -> None:
    first, _, _ = members
    lxc(first, "launch", "busybox", "c1", "--target", "n2")
    sh(first, "c1", MARKS)
    shown = sh(first, "c1", SHOWN)
    lxc(first, "snapshot", "c1", "s0")
    sh(first, "c1", "echo two >/root/f; chmod 4751 /root/f")
    assert "The instance is currently running" in failure(first, "publish", "c1", "--alias", "x")
    asked = '{"source": {"type": "instance", "name": "c1"}}'
    wrong = failure(first, "query", "-X", "POST", "-d", asked, "/1.0/images")
    assert "Cannot export a running instance as an image" in wrong

    said = lxc(first, "publish", "c1", "--alias", "two", "--force", "--public", "--compression=squashfs")
    two = image(first, "two")
    assert said.split()[-1] == two["fingerprint"]
    assert (two["public"], two["architecture"]) == (True, "x86_64")
    assert two["properties"] == image(first, "busybox")["properties"]
    assert instance(first, "c1")["status"] == "Running"
    lxc(first, "publish", "c1/s0", "--alias", "one", "os=own", "colour=blue")
    assert image(first, "one")["properties"] == {"os": "own", "colour": "blue"}

    for alias, location in (("one", "n3"), ("two", "n1")):
        lxc(first, "launch", alias, alias, "--target", location)
    assert sh(first, "one", SHOWN) == shown
    assert sh(first, "two", SHOWN) == shown.replace("one\n", "two\n")
    assert instance(first, "one")["config"]["image.colour"] == "blue"

    lxc(first, "image", "export", "one", str(tmp_path / "one"))
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert tar.next().name == "metadata.yaml"  # type: ignore[union-attr]
        assert "rootfs/root/f" in tar.getnames()


def test_who_sees_to_the_files_is_in_nobodys_way(members: list[Member]) -> None:
    """What serves the files of a stopped instance stays for a while, and has its disk mounted."""
    first = members[0]
    lxc(first, "init", "busybox", "c1", "--target", "n2")
    for text in ("one", "two"):
        lxc(first, "file", "push", "-", "c1/root/f", stdin=text)
        lxc(first, "publish", "c1", "--alias", text)
    assert lxc(first, "file", "pull", "c1/root/f", "-") == "two"
    lxc(first, "copy", "c1", "c2", "--target", "n3")
    lxc(first, "launch", "one", "c3")
    assert (sh(first, "c3", "cat /root/f"), lxc(first, "file", "pull", "c2/root/f", "-")) == ("one", "two")
    lxc(first, "start", "c1")
    assert sh(first, "c1", "cat /root/f") == "two"


def test_what_cannot_be_published_leaves_no_image(members: list[Member]) -> None:
    first = members[0]
    lxc(first, "init", "busybox", "c1", "--target", "n2")
    before = len(first.ask("GET", "/1.0/images"))
    assert "Invalid compression algorithm" in failure(first, "publish", "c1", "--compression=magic")
    assert "not found" in failure(first, "publish", "c1/s9")
    asked = '{"source": {"type": "instance", "name": "c1"}, "aliases": [{"name": "busybox"}]}'
    wrong = failure(first, "query", "-X", "POST", "-d", asked, "/1.0/images")
    assert wrong.endswith("Alias already exists: busybox")
    assert len(first.ask("GET", "/1.0/images")) == before


OWN = ("--project", "own")


@pytest.fixture
def own(members: list[Member]) -> Iterator[dict[str, str]]:
    """A project with images of its own; how its members can be asked as another server, by a stranger."""
    first, second, _ = members
    lxc(first, "project", "create", "own", "-c", "features.profiles=false")
    lxc(first, "init", "busybox", "c1", "--target", second.name)
    lxc(first, "publish", "c1", "--alias", "bb", "version=one")
    shown = first.ask("GET", "/1.0")["environment"]
    yield {"server": f"https://{shown['addresses'][0]}", "certificate": shown["certificate"]}
    for row in first.ask("GET", "/1.0/instances?recursion=1&project=own"):
        lxc(first, "delete", "--force", row["name"], *OWN)
    for fingerprint in images(first).split():
        lxc(first, "image", "delete", fingerprint, *OWN)
    lxc(first, "project", "delete", "own")


def images(member: Member) -> str:
    """Fingerprints of the project's."""
    return lxc(member, "image", "list", "-f", "csv", "-c", "F", *OWN)


def asked(path: str, body: object) -> tuple[str, ...]:
    return ("query", "--wait", "-X", "POST", "-d", json.dumps(body), path)


def test_a_private_image_goes_to_another_server_by_a_secret(
    members: list[Member], own: dict[str, str]
) -> None:
    first, second, third = members
    one = image(first, "bb")["fingerprint"]
    lxc(second, "image", "copy", "local:bb", "local:", "--target-project", "own", "--alias", "pulled")
    eventually(lambda: one in images(first), within=15)
    lxc(first, "image", "delete", "pulled", *OWN)
    wanted = json.dumps({"source": {"mode": "push", "fingerprint": one}})
    token = json.loads(lxc(first, "query", "-X", "POST", "-d", wanted, "/1.0/images?project=own"))
    body = {"target": own["server"], "certificate": own["certificate"], "project": "own"}
    body |= {"secret": token["metadata"]["secret"]}
    pushed = asked(f"/1.0/images/{one}/export", body | {"aliases": [{"name": "pushed"}]})
    lxc(third, *pushed)
    lxc(first, "image", "delete", "pushed", *OWN)
    assert failure(third, *pushed).endswith("not authorized")  # a secret serves once


def test_an_image_is_got_from_another_server_and_follows_it(
    members: list[Member], own: dict[str, str]
) -> None:
    first, _, third = members
    one = image(first, "bb")["fingerprint"]
    source = {"type": "image", "alias": "bb", "protocol": "lxd", "mode": "pull", **own}
    wanted = asked("/1.0/images?project=own", {"source": source, "aliases": [{"name": "own"}]})
    assert "not found" in failure(third, *wanted)  # it is private
    lxc(first, "query", "-X", "PATCH", "-d", '{"public": true}', f"/1.0/images/{one}")
    lxc(third, *wanted)
    assert lxc(first, "image", "refresh", "own", *OWN).strip() == "Image already up to date."
    lxc(first, "image", "alias", "delete", "bb")
    lxc(first, "publish", "c1", "--alias", "bb", "version=two", "--public")
    assert "successfully" in lxc(third, "image", "refresh", "own", *OWN)
    eventually(lambda: "version: two" in lxc(first, "image", "show", "own", *OWN), within=15)
    assert one not in images(first)
    assert "source not found" in failure(first, "image", "refresh", "busybox")
    lxc(
        first,
        "query",
        "-X",
        "PATCH",
        "-d",
        '{"auto_update": true}',
        f"/1.0/images/{images(first)[:64]}?project=own",
    )
    lxc(first, "image", "alias", "delete", "bb")
    lxc(first, "publish", "c1", "--alias", "bb", "version=three", "--public")
    third.ask("GET", "/internal/testing/image-refresh")
    eventually(lambda: "version: three" in lxc(first, "image", "show", "own", *OWN), within=15)
    lxc(third, *asked("/1.0/instances?project=own", {"name": "c2", "source": source}))
    lxc(third, "start", "c2", *OWN)


def test_the_image_of_another_server_comes_with_the_instance(
    members: list[Member], own: dict[str, str]
) -> None:
    first, _, third = members
    one = image(first, "bb")["fingerprint"]
    source = {"type": "image", "alias": "bb", "protocol": "lxd", "mode": "pull", **own}
    body = {"name": "c2", "source": source}
    assert "not found" in failure(first, *asked("/1.0/instances?project=own&target=n3", body))
    assert first.ask("GET", "/1.0/instances?project=own") == []
    token = json.loads(lxc(first, "query", "-X", "POST", f"/1.0/images/{one}/secret"))
    given = source | {"alias": "", "fingerprint": one, "secret": token["metadata"]["secret"]}
    lxc(first, *asked("/1.0/instances?project=own&target=n3", body | {"source": given}))
    [row] = third.ask("GET", "/1.0/images?recursion=1&project=own")
    assert (row["fingerprint"], row["cached"], row["auto_update"]) == (one, True, False)
    lxc(third, "start", "c2", *OWN)
    lxc(first, "image", "copy", "local:bb", "local:", "--target-project", "own", "--alias", "mine")
    kept = "/1.0/images?recursion=1&project=own"
    eventually(lambda: [row["cached"] for row in third.ask("GET", kept)] == [False], within=15)
