from pathlib import Path

import pytest
import yaml

from lxdpy.host.image_metadata import CorruptImage
from lxdpy.resources.images.publish import metadata
from lxdpy.resources.instances.model import Instance
from tests.lxdpy.fakes import MEMBER_ID

ROW = Instance("default", "c1", "u1", MEMBER_ID)
OWN = {
    "architecture": "amd64",
    "creation_date": 7,
    "expiry_date": 9,
    "properties": {"os": "busybox"},
    "templates": {"/etc/hosts": {"template": "hosts.tpl", "when": ["create"]}},
}


def test_an_image_says_of_itself_what_the_instance_did(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(OWN))
    kept = {key: value for key, value in OWN.items() if key != "expiry_date"}
    assert yaml.safe_load(metadata(tmp_path, ROW, None)) == kept
    assert yaml.safe_load(metadata(tmp_path, ROW, {"a": "b"})) == {**kept, "properties": {"a": "b"}}


def test_an_instance_without_metadata_gets_some(tmp_path: Path) -> None:
    found = yaml.safe_load(metadata(tmp_path, ROW, None))
    assert (found["architecture"], found["properties"]["name"]) == ("x86_64", "c1")


def test_damaged_metadata_is_not_passed_on(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("architecture: [")
    with pytest.raises(CorruptImage):
        metadata(tmp_path, ROW, None)
