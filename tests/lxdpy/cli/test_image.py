import asyncio
import hashlib
from pathlib import Path

import pytest

from cluster.errors import Unsupported
from lxdpy.cli import image
from lxdpy.host.image_archive import kind_of, look_into, pack
from tests.lxdpy.cli.server import Begun, Cli

MADE = b"an image"
FINGERPRINT = hashlib.sha256(MADE).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, lxdpy: Cli) -> None:
    async def build(target: Path, *_: str) -> None:
        await asyncio.to_thread(target.write_bytes, MADE)

    monkeypatch.setattr(image, "build_busybox", build)
    monkeypatch.setattr(image, "build_debian", build)
    lxdpy.server.answers["GET /1.0"] = {}


def test_an_image_is_uploaded_and_named(lxdpy: Cli) -> None:
    lxdpy.server.answers["POST /1.0/images"] = Begun({"fingerprint": FINGERPRINT})
    assert lxdpy.ok("image", "build", "busybox") == f"busybox: {FINGERPRINT[:12]}\n"
    assert lxdpy.server.files == [MADE]
    upload, alias = lxdpy.server.changes()
    assert upload.path == "/1.0/images"
    assert (alias.path, alias.body) == ("/1.0/images/aliases", {"name": "busybox", "target": FINGERPRINT})


def test_the_alias_can_be_chosen(lxdpy: Cli) -> None:
    lxdpy.ok("image", "build", "debian/12", "--alias", "mine")
    assert lxdpy.server.changes()[-1].body["name"] == "mine"


def test_an_image_that_is_there_and_named_is_left_alone(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/images/aliases/debian%2F12"] = {"target": FINGERPRINT, "description": ""}
    assert "there already" in lxdpy.ok("image", "build", "debian/12")
    assert lxdpy.server.changes() == []


def test_an_image_that_is_there_without_its_name_is_not_sent_again(lxdpy: Cli) -> None:
    lxdpy.server.answers[f"GET /1.0/images/{FINGERPRINT}"] = {}
    lxdpy.ok("image", "build", "busybox")
    assert [one.path for one in lxdpy.server.changes()] == ["/1.0/images/aliases"]


def test_an_alias_of_another_image_is_turned_and_keeps_its_description(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/images/aliases/busybox"] = {"target": "old", "description": "mine"}
    lxdpy.ok("image", "build", "busybox")
    turned = lxdpy.server.changes()[-1]
    assert (turned.method, turned.path) == ("PUT", "/1.0/images/aliases/busybox")
    assert turned.body == {"target": FINGERPRINT, "description": "mine"}


def test_a_refused_image_gets_no_name(lxdpy: Cli) -> None:
    lxdpy.server.answers["POST /1.0/images"] = Begun("No space left")
    assert lxdpy.fails("image", "build", "busybox") == "Error: No space left"
    assert [one.path for one in lxdpy.server.changes()] == ["/1.0/images"]


def test_a_missing_program_is_said(lxdpy: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def build(target: Path) -> None:
        raise Unsupported("Needs a busybox with init")

    monkeypatch.setattr(image, "build_busybox", build)
    assert lxdpy.fails("image", "build", "busybox") == "Error: Needs a busybox with init"


def test_an_unknown_kind_is_wrong_usage(lxdpy: Cli) -> None:
    assert "debian/12" in lxdpy.fails("image", "build", "windows", status=2)


def test_it_can_be_packed_by_another_compressor(
    lxdpy: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def build(target: Path) -> None:
        (tmp_path / "rootfs").mkdir()
        (tmp_path / "metadata.yaml").write_text("architecture: x86_64\n")
        await pack(tmp_path, target, "gzip", names=("metadata.yaml", "rootfs"))

    monkeypatch.setattr(image, "build_busybox", build)
    lxdpy.ok("image", "build", "busybox", "--compression", "none")
    file = tmp_path / "sent"
    file.write_bytes(lxdpy.server.files[0])
    assert kind_of(file) == "none"
    assert look_into(file, want_rootfs=True).metadata == b"architecture: x86_64\n"
