"""Images of a simplestreams server by the stock client: got once, kept new, or nothing left."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.harness import LXC, eventually, lxc, lxc_json
from integration.instances import clear, failure, sh
from integration.streams import Streams, serving
from lxdpy.dev.members import Cluster
from lxdpy.dev.netns import SWITCH, Failed, Net, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

REMOTE = "mirror"


class House:
    """A cluster of two, spoken to through the first, and the server."""

    def __init__(self, cluster: Cluster, streams: Streams) -> None:
        self.members, self.streams = cluster.members, streams
        self.first, self.second = cluster.members

    def lxc(self, *words: str) -> str:
        """The client trusts the server as the daemons do."""
        known = {
            "LXD_CONF": str(self.streams.folder / "client"),
            "SSL_CERT_FILE": str(self.streams.authority),
        }
        command = self.first.net.enter(self.first.name, LXC, *words)
        return run(*command, timeout=120, environment=self.first.environment | known)

    def failure(self, *words: str) -> str:
        with pytest.raises(Failed) as failed:
            self.lxc(*words)
        return str(failed.value)

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = lxc_json(self.first, "image", "list")
        return found

    def begin(self, name: str, alias: str, target: str = "n2", **body: object) -> dict[str, Any]:
        """The answer to a create."""
        source = {
            "type": "image", "mode": "pull", "protocol": "simplestreams", "server": self.streams.server,
            "alias": alias,
        }  # fmt: skip
        asked = json.dumps({"name": name, "source": source, **body})
        answer = lxc(self.first, "query", "-X", "POST", "-d", asked, f"/1.0/instances?target={target}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def operation(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.first.ask("GET", f"/1.0/operations/{id}")
        return found

    def progress(self, ids: list[str]) -> str:
        """Of whichever gets the image."""
        told = [self.operation(id)["metadata"] or {} for id in ids]
        return next((one["download_progress"] for one in told if "download_progress" in one), "")

    def stopped(self) -> list[str]:
        """Instances that are there, as the second member knows, which makes most of them."""
        rows = self.second.ask("GET", "/1.0/instances?recursion=1")
        return sorted(row["name"] for row in rows if row["status"] == "Stopped")

    def left(self) -> list[Path]:
        """Of downloads and instances that came to nothing."""
        folders = [member.folder for member in self.members]
        kept = [path for folder in folders for path in (folder / "images").glob(".upload-*")]
        return kept + [path for folder in folders for path in folder.glob("storage-pools/*/containers/*")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("streams")
    streams = Streams(folder, Net("", ()).address(SWITCH))
    with harness.running(members=2, gpus=2, SSL_CERT_FILE=str(streams.authority)) as cluster:
        made = House(cluster, streams)
        eventually(lambda: len(made.first.ask("GET", "/1.0/gpus")) == 4, within=30)
        with serving(cluster, streams):
            made.lxc("remote", "add", REMOTE, streams.server, "--protocol", "simplestreams")
            yield made


@pytest.fixture(autouse=True)
def emptied(house: House) -> Iterator[None]:
    yield
    clear(house.first)
    for image in house.images():
        lxc(house.first, "image", "delete", image["fingerprint"])


def test_an_image_is_launched_by_its_name_and_kept_for_the_next(house: House) -> None:
    fingerprint = house.streams.publish("20260101_00:01")
    house.lxc("launch", f"{REMOTE}:alpine/3.18", "c1", "--target", "n2", "-c", "limits.gpu=1")
    shown = lxc(house.first, "exec", "c1", "--", "sh", "-c", "cat /serial; stat -c %u /bin/busybox")
    assert shown == "20260101_00:01\n0\n"
    [image] = house.images()
    assert (image["fingerprint"], image["cached"], image["auto_update"]) == (fingerprint, True, True)
    assert image["update_source"] == {
        "alias": "alpine/3.18", "certificate": "", "protocol": "simplestreams", "image_type": "container",
        "server": house.streams.server,
    }  # fmt: skip
    assert image["properties"]["description"] == "alpine 3.18 amd64 (20260101_00:01)"
    config = lxc_json(house.first, "list", "c1")[0]["config"]
    assert (config["volatile.base_image"], config["image.os"]) == (fingerprint, "alpine")
    asked = house.streams.requests("")
    house.lxc("launch", f"{REMOTE}:alpine/3.18", "c2", "--target", "n1")
    assert house.streams.requests("") == asked
    assert image["last_used_at"] < house.images()[0]["last_used_at"]
    house.streams.publish("20260101_00:02")
    lxc(house.first, "query", "/internal/testing/image-refresh")
    house.lxc("launch", f"{REMOTE}:alpine/3.18", "c3", "--target", "n1")
    assert sh(house.first, "c3", "cat /serial") == "20260101_00:02\n"
    assert [one["cached"] for one in house.images()] == [True]


def test_who_launches_sees_how_far_it_is_and_many_get_it_once(house: House) -> None:
    house.streams.publish("20260102_00:01", "3.19")
    with house.streams.doing("hold"):
        made = [house.begin(name, "alpine/3.19", config={"limits.gpu": "1"}) for name in ("c1", "c2")]
        told = eventually(lambda: house.progress([one["id"] for one in made]), within=30)
        assert re.fullmatch(r"(metadata|rootfs): \d+% \(\d+\.\d\dMB/s\)", told)
        assert house.operation(made[1]["id"])["may_cancel"]
        assert "GPU" in failure(house.first, "init", "--empty", "c3", "--target=n2", "-c", "limits.gpu=1")
    eventually(lambda: house.stopped() == ["c1", "c2"], within=60)
    assert house.streams.requests("3.19/20260102_00:01/rootfs") == 1


def test_a_launch_can_be_cancelled_while_its_image_comes(house: House) -> None:
    house.streams.publish("20260103_00:01", "3.20")
    with house.streams.doing("hold"):
        id = house.begin("c1", "alpine/3.20")["id"]
        eventually(lambda: house.streams.requests("3.20/20260103_00:01/"), within=30)
        lxc(house.first, "operation", "delete", id)
        eventually(lambda: house.left() == [] and house.first.ask("GET", "/1.0/instances") == [], within=30)
    assert house.images() == []


def test_who_is_killed_meanwhile_gets_the_image_afterwards(house: House) -> None:
    house.streams.publish("20260107_00:01", "3.13")
    with house.streams.doing("hold"):
        house.begin("c1", "alpine/3.13")
        eventually(lambda: house.streams.requests("3.13/20260107_00:01/"), within=30)
        house.second.kill()
    house.second.start(SSL_CERT_FILE=str(house.streams.authority))
    eventually(lambda: house.stopped() == ["c1"], within=60)
    lxc(house.first, "start", "c1")
    assert not list((house.second.folder / "images").glob(".upload-*"))


def test_who_waits_for_gpus_gets_the_image_when_it_has_them(house: House) -> None:
    house.streams.publish("20260108_00:01", "3.12")
    lxc(house.first, "init", "--empty", "c1", "--target=n2", "-c", "limits.gpu=2")
    house.begin("c2", "alpine/3.12", config={"limits.gpu": "1", "gpu.wait": "10m"})
    eventually(lambda: len(house.first.ask("GET", "/1.0/gpu-queue")) == 1, within=30)
    assert house.streams.requests("3.12/20260108_00:01/") == 0
    lxc(house.first, "delete", "c1")
    eventually(lambda: house.stopped() == ["c2"], within=60)
    assert [one["cached"] for one in house.second.ask("GET", "/1.0/images?recursion=1")] == [True]


def test_an_image_is_copied_under_a_name_and_follows_its_server(house: House) -> None:
    house.streams.publish("20260104_00:01", "3.17", form="root.tar.xz")
    house.lxc("image", "copy", f"{REMOTE}:alpine/3.17", "local:", "--alias", "x", "--auto-update")
    [image] = house.images()
    assert (image["cached"], image["auto_update"]) == (False, True)
    assert image["update_source"]["alias"] == "alpine/3.17"
    newer = house.streams.publish("20260104_00:02", "3.17")
    assert "successfully" in lxc(house.first, "image", "refresh", "x")
    assert [one["fingerprint"] for one in house.images()] == [newer]
    lxc(house.first, "launch", "x", "c1", "--target", "n2")
    assert sh(house.first, "c1", "cat /serial") == "20260104_00:02\n"


def test_what_cannot_be_had_leaves_nothing(house: House) -> None:
    streams = house.streams
    streams.publish("20260105_00:01", "3.16", wrong="e" * 64)
    streams.publish("20260105_00:01", "3.15")
    launch = ("launch", f"{REMOTE}:alpine/3.15", "c1", "--target", "n2")
    assert 'has no image "nothing"' in house.failure("launch", f"{REMOTE}:nothing", "c1")
    wrong = house.failure("launch", f"{REMOTE}:alpine/3.16", "c1")
    assert "Image is not the one announced" in wrong
    with streams.doing("cut"):
        assert f"Cannot get images/3.15/20260105_00:01/lxd.tar.xz from {streams.address}" in house.failure(
            *launch
        )
    images = house.second.folder / "images"
    inside = house.second.net.enter(house.second.name)
    run(*inside, "mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(images))
    assert "No space left for the image" in house.failure(*launch)
    eventually(lambda: run(*inside, "umount", str(images)) is not None, within=30)
    eventually(lambda: house.left() == [] and house.first.ask("GET", "/1.0/instances") == [], within=30)
    assert house.images() == []
    house.lxc(*launch)


def test_a_server_is_known_by_the_certificate_that_is_given(house: House) -> None:
    house.streams.publish("20260106_00:01", "3.14")
    source = {
        "type": "image", "protocol": "simplestreams", "server": house.streams.server, "alias": "alpine/3.14",
        "certificate": (house.first.folder / "server.crt").read_text(),
    }  # fmt: skip
    asked = ("query", "--wait", "-X", "POST", "/1.0/images", "-d")
    assert "certificate" in failure(house.first, *asked, json.dumps({"source": source}))
    source["certificate"] = house.streams.authority.read_text()
    lxc(house.first, *asked, json.dumps({"source": source}))
    assert house.images()[0]["update_source"]["certificate"] == source["certificate"]
