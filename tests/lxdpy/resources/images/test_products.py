"""What a simplestreams server says is read, and what does not fit passed over."""

import json
from typing import Any

import pytest

from cluster.errors import Error
from lxdpy.resources.images.products import (
    File,
    Found,
    address_of,
    newest,
    paths_of,
    products_of,
    starting,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64
METADATA = {
    "ftype": "lxd.tar.xz", "path": "i/lxd.tar.xz", "size": 10, "combined_squashfs_sha256": A,
    "combined_rootxz_sha256": B,
}  # fmt: skip
SQUASHFS = {"ftype": "squashfs", "path": "i/rootfs.squashfs", "size": 20}
TARBALL = {"ftype": "root.tar.xz", "path": "i/root.tar.xz", "size": 30}


def listed(*items: dict[str, Any], serial: str = "20260101", **product: Any) -> bytes:
    known = {"aliases": "alpine/3.18/default, alpine/3.18", "arch": "amd64", "os": "alpine"}
    version = {"items": {str(number): item for number, item in enumerate(items)}}
    said = known | {"versions": {serial: version}} | product
    return json.dumps({"products": {"one": said}}).encode()


def found(text: bytes, alias: str = "alpine/3.18", architecture: str = "x86_64") -> Found | None:
    named = (product for product in products_of(text) if product.is_named(alias, architecture))
    return next((image for product in named if (image := newest(product, alias))), None)


def test_an_alias_means_the_newest_version_as_squashfs() -> None:
    versions = {
        serial: {
            "label": "release",
            "items": {"m": METADATA | {"combined_squashfs_sha256": mark}, "r": TARBALL, "s": SQUASHFS},
        }
        for serial, mark in (("20260101_07:42", A), ("20260203_07:42", C), ("20260102_07:42", B))
    }
    needs = {"nesting": "true"}
    image = found(
        listed(versions=versions, release_title="3.18", support_eol="2027-01-02", lxd_requirements=needs)
    )
    assert image is not None
    assert (image.fingerprint, image.alias, image.architecture) == (C, "alpine/3.18", "x86_64")
    assert image.files == (File("metadata", "i/lxd.tar.xz", 10), File("rootfs", "i/rootfs.squashfs", 20))
    assert image.properties == {
        "architecture": "amd64", "description": "alpine 3.18 amd64 (release) (20260203_07:42)",
        "label": "release", "os": "alpine", "requirements.nesting": "true", "serial": "20260203_07:42",
        "type": "squashfs",
    }  # fmt: skip
    assert (image.expires, image.filename) == ("2027-01-02T00:00:00Z", "rootfs.squashfs")


@pytest.mark.parametrize(
    ("items", "fingerprint"),
    [
        ((METADATA, TARBALL), B),
        ((METADATA | {"combined_rootxz_sha256": "", "combined_sha256": C}, TARBALL), C),
        ((METADATA | {"ftype": "incus.tar.xz"}, SQUASHFS), A),
        (({"ftype": "lxd_combined.tar.gz", "path": "i/x", "size": 5, "sha256": C},), C),
    ],
)
def test_every_form_of_an_image_is_known(items: tuple[dict[str, Any], ...], fingerprint: str) -> None:
    image = found(listed(*items))
    assert image is not None
    assert image.fingerprint == fingerprint


@pytest.mark.parametrize(
    "items",
    [
        (METADATA,),
        (SQUASHFS,),
        (METADATA | {"combined_squashfs_sha256": "../../x"}, SQUASHFS),
        (METADATA, SQUASHFS | {"size": 0}),
        (METADATA, SQUASHFS | {"size": 2**40}),
        (METADATA, SQUASHFS | {"size": "20"}),
        (METADATA, SQUASHFS | {"path": "/etc/passwd"}),
        (METADATA, SQUASHFS | {"path": "i/../../x"}),
        (METADATA, SQUASHFS | {"path": "https://elsewhere/x"}),
        (METADATA, SQUASHFS | {"path": "i/x\n"}),
        (METADATA, {"ftype": "disk-kvm.img", "path": "i/disk", "size": 5}),
    ],
)
def test_what_is_no_image_for_containers_is_passed_over(items: tuple[dict[str, Any], ...]) -> None:
    assert found(listed(*items)) is None


def test_an_alias_alone_is_for_the_architecture_that_is_wanted() -> None:
    text = listed(METADATA, SQUASHFS)
    assert found(text, "alpine/3.18", "aarch64") is None
    assert found(text, "alpine/3.18/amd64", "aarch64") is not None
    assert found(text, "alpine/3.18/arm64", "x86_64") is None
    assert found(text, "alpine", "x86_64") is None


def test_images_are_found_by_the_beginning_of_their_fingerprint() -> None:
    [product] = products_of(listed(METADATA, SQUASHFS, TARBALL))
    assert [one.fingerprint for one in starting(product, "a" * 12)] == [A]
    assert list(starting(product, "d" * 12)) == []


def test_one_product_that_cannot_be_read_hides_no_other() -> None:
    text = json.loads(listed(METADATA, SQUASHFS))
    text["products"] = {"odd": [], "older": {"arch": 1}, **text["products"]}
    assert found(json.dumps(text).encode()) is not None


def test_lists_of_images_are_told_from_others() -> None:
    streams = {"a": {"datatype": "image-downloads", "path": "s/a.json"}, "b": {"datatype": "image-ids"}}
    assert paths_of(json.dumps({"index": streams}).encode()) == ["s/a.json"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"index": []}',
        b"\xff",
        b"[" * 100_000,
        b'{"index": {"a": {"datatype": "image-downloads", "path": "../x"}}}',
        b'{"index": {"a": {"datatype": "image-downloads", "path": "https://elsewhere/x"}}}',
    ],
)
def test_what_is_no_index_is_refused(text: bytes) -> None:
    with pytest.raises(Error):
        paths_of(text)


def test_paths_are_below_the_servers_address() -> None:
    assert (
        address_of("https://h/releases/", "i/2026_07:42/x?y#z") == "https://h/releases/i/2026_07:42/x%3Fy%23z"
    )
