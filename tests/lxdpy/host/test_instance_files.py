import os
from pathlib import Path

import pytest

from cluster.errors import Error, Invalid, NotFound
from lxdpy.host import instance_files
from lxdpy.host.image_metadata import Template
from lxdpy.host.instance_files import InstanceMetadata

HOSTS = Template("hosts.tpl", ("create", "copy"), create_only=True, properties={"a": "b"})


def test_metadata_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert instance_files.read_metadata(tmp_path) == InstanceMetadata()
    wanted = InstanceMetadata("x86_64", 5, 0, {"os": "Debian", "release": "12"}, {"/etc/hosts": HOSTS})
    instance_files.write_metadata(tmp_path, wanted)
    assert instance_files.read_metadata(tmp_path) == wanted
    assert os.listdir(tmp_path) == ["metadata.yaml"]


@pytest.mark.parametrize(
    "path", ["etc/hosts", "/", "/etc/", "/../etc", "/etc/./hosts", "/etc//x", "/a\0b", ""]
)
def test_templates_are_for_files_within_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(Invalid, match="absolute path"):
        instance_files.write_metadata(tmp_path, InstanceMetadata(templates={path: HOSTS}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\0b", "x" * 201])
def test_a_template_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="template filename"):
        instance_files.write_template(tmp_path, name, b"")
    with pytest.raises(Invalid, match="template filename"):
        instance_files.write_metadata(tmp_path, InstanceMetadata(templates={"/x": Template(name)}))


def test_templates_are_written_listed_read_and_deleted(tmp_path: Path) -> None:
    assert instance_files.template_names(tmp_path) == []
    instance_files.write_template(tmp_path, "b.tpl", b"{{ container.name }}")
    instance_files.write_template(tmp_path, "a.tpl", b"")
    assert instance_files.template_names(tmp_path) == ["a.tpl", "b.tpl"]
    assert instance_files.read_template(tmp_path, "b.tpl") == b"{{ container.name }}"
    instance_files.delete_template(tmp_path, "b.tpl")
    for gone in (instance_files.read_template, instance_files.delete_template):
        with pytest.raises(NotFound, match=r"b\.tpl"):
            gone(tmp_path, "b.tpl")


def test_what_an_image_put_in_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "secret").write_text("key")
    (tmp_path / "templates" / "link").symlink_to("../secret")
    os.mkfifo(tmp_path / "templates" / "fifo")
    assert instance_files.template_names(tmp_path) == []
    for name in ("link", "fifo"):
        with pytest.raises(Error, match=name):
            instance_files.read_template(tmp_path, name)
    (tmp_path / "metadata.yaml").symlink_to("secret")
    with pytest.raises(Error, match=r"metadata\.yaml"):
        instance_files.read_metadata(tmp_path)


def test_what_is_no_metadata_is_refused(tmp_path: Path) -> None:
    for text in ("- 1", "architecture: [1]\ncreation_date: 1", "a: b: c", "x" * 300_000):
        (tmp_path / "metadata.yaml").write_text(text)
        with pytest.raises(Invalid, match=r"metadata\.yaml"):
            instance_files.read_metadata(tmp_path)
