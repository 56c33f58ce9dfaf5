import asyncio
import tarfile
from pathlib import Path

import pytest

from cluster.errors import Invalid, Unsupported
from lxdpy.host import build, build_files
from lxdpy.host.build import build_busybox, build_debian
from lxdpy.host.images import ImageStore
from tests.lxdpy.host.image_files import in_pieces


def built(folder: Path, name: str = "image") -> bytes:
    asyncio.run(build_busybox(folder / name))
    return (folder / name).read_bytes()


def test_the_same_busybox_gives_the_same_image(tmp_path: Path) -> None:
    assert built(tmp_path, "one") == built(tmp_path, "other")


def test_a_busybox_image_can_be_imported(tmp_path: Path) -> None:
    async def go() -> None:
        async with ImageStore(tmp_path).upload() as upload:
            await upload.add(in_pieces(built_already))
            found = await upload.finish()
        assert found.metadata.properties["os"] == "BusyBox"
        assert found.metadata.properties["release"][0].isdigit()

    built_already = built(tmp_path)
    asyncio.run(go())


def test_a_busybox_image_has_an_init_and_all_links_lead_to_busybox(tmp_path: Path) -> None:
    built(tmp_path)
    with tarfile.open(tmp_path / "image") as image:
        members = {member.name: member for member in image}
    links = [member for member in members.values() if member.issym()]
    assert "rootfs/sbin/init" in members
    assert len(links) > 200
    for member in links:
        target = Path("/", member.name).parent / member.linkname
        assert str(target.resolve()) == "/rootfs/bin/busybox"
    assert all((member.uid, member.gid) == (0, 0) for member in members.values())


def test_every_file_lies_in_a_folder_made_before_it(tmp_path: Path) -> None:
    built(tmp_path)
    seen = {""}
    with tarfile.open(tmp_path / "image") as image:
        for member in image:
            assert member.name.rpartition("/")[0] in seen
            seen.add(member.name)


def test_a_busybox_without_init_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "busybox"
    fake.write_text("#!/bin/sh\necho bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setattr(build, "BUSYBOX", fake)
    with pytest.raises(Unsupported, match="busybox-static"):
        built(tmp_path)
    assert not (tmp_path / "image").exists()


def test_a_release_is_no_option_or_path(tmp_path: Path) -> None:
    for suite in ("--mode=root", "../x", "debian/", "a b"):
        with pytest.raises(Invalid, match="Not a Debian release"):
            asyncio.run(build_debian(tmp_path / "image", suite))


def test_the_images_sources_are_debians_own() -> None:
    lines = build_files.debian_sources("bookworm").splitlines()
    assert lines[0] == "deb http://deb.debian.org/debian bookworm main"
    assert len(lines) == 3
