import asyncio
import os
import tarfile
from pathlib import Path

import pytest

from cluster.errors import Error, Invalid
from lxdpy.host.image_archive import kind_of, pack, unpack
from lxdpy.host.run import CommandFailed
from tests.lxdpy.host.image_files import METADATA, everything_in


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "rootfs/bin").mkdir(parents=True)
    (folder / "metadata.yaml").write_bytes(METADATA)
    (folder / "rootfs/bin/tool").write_text("#!/bin/sh\n")
    (folder / "rootfs/bin/tool").chmod(0o4755)
    (folder / "rootfs/bin/same").hardlink_to(folder / "rootfs/bin/tool")
    (folder / "rootfs/link").symlink_to("/bin/tool")
    return folder


@pytest.mark.parametrize(
    ("compression", "kind"),
    [("none", "none"), ("gzip", "gzip"), ("gzip -1", "gzip"), ("xz 1", "xz"), ("zstd -T0", "zstd"),
     ("bzip2", "bzip2"), ("squashfs", "squashfs")],
)  # fmt: skip
def test_what_is_packed_unpacks_the_same(tree: Path, tmp_path: Path, compression: str, kind: str) -> None:
    file, again = tmp_path / "image", tmp_path / "again"
    asyncio.run(pack(tree, file, compression))
    assert kind_of(file) == kind
    again.mkdir()
    asyncio.run(unpack(file, again))
    assert everything_in(again) == everything_in(tree)
    assert (again / "rootfs/bin/tool").stat().st_mode & 0o7777 == 0o4755
    assert (again / "rootfs/bin/tool").samefile(again / "rootfs/bin/same")
    assert os.readlink(again / "rootfs/link") == "/bin/tool"


def test_only_the_names_asked_for_are_packed(tree: Path, tmp_path: Path) -> None:
    asyncio.run(pack(tree, tmp_path / "image", names=("metadata.yaml",)))
    with tarfile.open(tmp_path / "image") as packed:
        assert packed.getnames() == ["metadata.yaml"]


@pytest.mark.parametrize("compression", ["gzip; touch /tmp/x", "gzip $(id)", "sh", "", "gzip|cat", "xz\n-1"])
def test_a_compression_is_no_command(tree: Path, tmp_path: Path, compression: str) -> None:
    with pytest.raises(Invalid, match="Unknown compression"):
        asyncio.run(pack(tree, tmp_path / "image", compression))


def test_packing_that_fails_leaves_no_file(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        asyncio.run(pack(tree, tmp_path / "image", names=("metadata.yaml", "missing")))
    assert not (tmp_path / "image").exists()


def test_a_name_is_no_option(tree: Path, tmp_path: Path) -> None:
    name = "--checkpoint-action=exec=false"
    (tree / name).write_text("")
    asyncio.run(pack(tree, tmp_path / "image", "none", names=(name,)))
    with tarfile.open(tmp_path / "image") as packed:
        assert packed.getnames() == [name]


def test_an_instances_own_files_stay_out_of_an_image(tree: Path, tmp_path: Path) -> None:
    (tree / "overlay").mkdir()
    asyncio.run(pack(tree, tmp_path / "image"))
    with tarfile.open(tmp_path / "image") as packed:
        names = packed.getnames()
    assert names[0] == "metadata.yaml"
    assert "overlay" not in names


def test_a_colon_in_a_name_is_no_host(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    asyncio.run(pack(tree, tmp_path / "host:image", "gzip"))
    asyncio.run(unpack(tmp_path / "host:image", tmp_path / "a:b"))
    assert (tmp_path / "a:b/metadata.yaml").is_file()


def test_extended_attributes_come_along_but_not_those_overlayfs_obeys(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "rootfs/bin/tool", "user.note", b"kept")
    if os.getuid() == 0:
        os.setxattr(tree / "rootfs/bin", "trusted.overlay.opaque", b"y")
    again = tmp_path / "again"
    again.mkdir()
    asyncio.run(pack(tree, tmp_path / "image", "none"))
    asyncio.run(unpack(tmp_path / "image", again))
    assert os.getxattr(again / "rootfs/bin/tool", "user.note") == b"kept"
    assert os.listxattr(again / "rootfs/bin") == []


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises((Error, FileNotFoundError)):
        asyncio.run(unpack(tmp_path / "none", tmp_path))
