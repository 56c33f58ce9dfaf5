import asyncio
import hashlib
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from cluster.errors import Invalid, NotFound
from lxdpy.host.image_metadata import CorruptImage
from lxdpy.host.images import ImageStore, Received
from tests.lxdpy.host.image_files import (
    COMPRESS,
    METADATA,
    Entry,
    everything_in,
    in_pieces,
    link,
    tar,
    unified,
)


def received(store: ImageStore, *files: bytes, expected: str = "") -> Received:
    async def go() -> Received:
        async with store.upload() as upload:
            for file in files:
                await upload.add(in_pieces(file))
            return await upload.finish(expected)

    return asyncio.run(go())


def unpacked(store: ImageStore, folder: Path, *files: bytes) -> Path:
    target = folder / "target"
    target.mkdir()
    image = received(store, *files).files.fingerprint
    asyncio.run(store.unpack(image, target))
    return target


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_unified_image_comes_in_and_unpacks(store: ImageStore, tmp_path: Path, compression: str) -> None:
    target = unpacked(store, tmp_path, COMPRESS[compression](unified()))
    assert (target / "rootfs/etc/issue").read_text() == "test\n"
    assert (target / "metadata.yaml").read_bytes() == METADATA
    assert (target / "templates/hostname.tpl").is_file()


def test_the_fingerprint_is_the_hash_of_the_file(store: ImageStore) -> None:
    data = unified()
    found = received(store, data)
    assert found.files.fingerprint == hashlib.sha256(data).hexdigest()
    assert found.files.size == len(data)
    assert found.metadata.properties["os"] == "Test"
    assert store.files(found.files.fingerprint) == found.files
    assert store.fingerprints() == [found.files.fingerprint]


def test_the_fingerprint_of_a_split_image_is_that_of_both_files(store: ImageStore, tmp_path: Path) -> None:
    metadata = COMPRESS["xz"](tar(("metadata.yaml", METADATA)))
    rootfs = COMPRESS["gzip"](tar(("./", b""), ("./etc/", b""), ("./etc/issue", b"split\n")))
    found = received(store, metadata, rootfs)
    assert found.files.fingerprint == hashlib.sha256(metadata + rootfs).hexdigest()
    assert found.files.rootfs is not None
    assert (found.files.metadata.read_bytes(), found.files.rootfs.read_bytes()) == (metadata, rootfs)
    target = tmp_path / "target"
    target.mkdir()
    asyncio.run(store.unpack(found.files.fingerprint, target))
    assert (target / "rootfs/etc/issue").read_text() == "split\n"


@pytest.fixture
def squashfs(tmp_path: Path) -> bytes:
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/issue").write_text("squashed\n")
    words = ["mksquashfs", str(tmp_path / "tree"), str(tmp_path / "squashfs"), "-quiet", "-no-progress"]
    subprocess.run(words, check=True, capture_output=True)
    return (tmp_path / "squashfs").read_bytes()


def test_a_root_file_system_may_be_squashfs(store: ImageStore, tmp_path: Path, squashfs: bytes) -> None:
    target = unpacked(store, tmp_path, tar(("metadata.yaml", METADATA)), squashfs)
    assert (target / "rootfs/etc/issue").read_text() == "squashed\n"


def test_a_squashfs_that_is_cut_short_is_refused(store: ImageStore, squashfs: bytes) -> None:
    for rest in (squashfs[:200], squashfs[:50]):
        with pytest.raises(CorruptImage, match="squashfs file is cut short"):
            received(store, tar(("metadata.yaml", METADATA)), rest)


def test_the_metadata_may_stand_last(store: ImageStore) -> None:
    assert received(store, tar(("./rootfs/", b""), ("./metadata.yaml", METADATA))).metadata.creation_date


GOOD = COMPRESS["gzip"](unified())
BLOB = bytes(range(256)) * 4000
FILLED = COMPRESS["gzip"](tar(("rootfs/", b""), ("rootfs/blob", BLOB), ("metadata.yaml", METADATA)))


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([b""], "neither a tarball"),
        ([b"hello world" * 100], "neither a tarball"),
        ([b"\x1f\x8b" + b"nonsense" * 100], "damaged"),
        ([b"\x28\xb5\x2f\xfd" + b"nonsense" * 100], "damaged"),
        ([b"\xfd7zXZ\0" + b"nonsense" * 100], "damaged"),
        ([b"BZh9" + b"nonsense" * 100], "damaged"),
        ([FILLED[: len(FILLED) // 2]], "damaged|no metadata.yaml"),
        ([COMPRESS["gzip"](b"hello world" * 1000)], "damaged"),
        ([tar(("rootfs/", b""))], "no metadata.yaml"),
        ([tar(("metadata.yaml", METADATA))], "no rootfs"),
        ([tar(("metadata.yaml", METADATA), ("rootfs-not/", b""))], "no rootfs"),
        ([unified(metadata=b"architecture: x86_64")], "no creation_date"),
        ([tar(link("metadata.yaml", "/etc/passwd"), ("rootfs/", b""))], "not a file of reasonable size"),
        ([unified(metadata=b"#" * 2**19)], "not a file of reasonable size"),
        ([b"hsqs" + b"x" * 500], "damaged"),
        ([tar(("metadata.yaml", METADATA)), b"hello"], "neither a tarball"),
        ([tar(("metadata.yaml", METADATA)), b"\x1f\x8bnonsense"], "damaged"),
        ([GOOD, GOOD, GOOD], "one file or two"),
        ([], "one file or two"),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(
    store: ImageStore, files: list[bytes], complaint: str
) -> None:
    with pytest.raises(Invalid, match=complaint):
        received(store, *files)
    assert everything_in(store.folder) == []


def test_an_image_of_another_fingerprint_than_announced_is_refused(store: ImageStore) -> None:
    with pytest.raises(Invalid, match="not the one announced"):
        received(store, GOOD, expected="0" * 64)
    assert everything_in(store.folder) == []
    received(store, GOOD, expected=hashlib.sha256(GOOD).hexdigest())


def test_an_upload_that_breaks_off_leaves_nothing(store: ImageStore) -> None:
    async def go() -> None:
        async with store.upload() as upload:
            await upload.add(in_pieces(GOOD[:100]))
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(go())
    assert everything_in(store.folder) == []


def test_the_same_image_may_come_twice_and_goes_once(store: ImageStore) -> None:
    image = received(store, GOOD).files.fingerprint
    received(store, GOOD)
    assert store.fingerprints() == [image]
    assert store.has(image)
    store.remove(image)
    store.remove(image)
    assert everything_in(store.folder) == []
    with pytest.raises(NotFound):
        store.files(image)


def test_a_sweep_removes_what_a_crash_left(store: ImageStore) -> None:
    image = received(store, GOOD).files.fingerprint
    (store.folder / ".upload-abc").mkdir()
    asyncio.run(store.sweep())
    assert everything_in(store.folder) == [image]


def test_a_fingerprint_is_no_path(store: ImageStore) -> None:
    for name in ("../../etc/passwd", "a/b", "", "."):
        with pytest.raises(Invalid, match="Not a fingerprint"):
            store.files(name)


def test_a_tarball_cut_short_fails_to_unpack(store: ImageStore, tmp_path: Path) -> None:
    """At import only the beginning is looked at: an image of a gigabyte must not be read twice."""
    blob = random.Random(1).randbytes(4_000_000)
    whole = COMPRESS["gzip"](unified(("rootfs/blob", blob)))
    with pytest.raises(CorruptImage, match="cannot be unpacked"):
        unpacked(store, tmp_path, whole[: len(whole) * 2 // 3])


ESCAPES: dict[str, tuple[Entry, ...]] = {
    "dots": (("rootfs/../../outside/evil", b"x"),),
    "dots at the start": (("../outside/evil", b"x"),),
    "absolute": (("{outside}/evil", b"x"),),
    "through an absolute link": (link("rootfs/way", "{outside}"), ("rootfs/way/evil", b"x")),
    "through a relative link": (link("rootfs/way", "../../outside"), ("rootfs/way/evil", b"x")),
    "through two links": (
        link("rootfs/a", "../.."),
        link("rootfs/b", "a/outside"),
        ("rootfs/b/evil", b"x"),
    ),
    "over a link": (link("rootfs/file", "{outside}/precious"), ("rootfs/file", b"overwritten")),
    "by a hard link": (
        link("rootfs/hard", "{outside}/precious", tarfile.LNKTYPE),
        ("rootfs/hard", b"overwritten"),
    ),
    "by a hard link with dots": (link("rootfs/hard", "../outside/precious", tarfile.LNKTYPE),),
    "by a hard link to a link": (
        link("rootfs/soft", "{outside}/precious"),
        link("rootfs/hard", "rootfs/soft", tarfile.LNKTYPE),
        ("rootfs/hard", b"overwritten"),
    ),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_an_image_cannot_reach_outside_by(name: str, store: ImageStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")

    def placed(entry: Entry) -> Entry:
        if isinstance(entry, tarfile.TarInfo):
            return link(entry.name, entry.linkname.format(outside=outside), entry.type)
        return entry[0].format(outside=outside), entry[1]

    try:
        target = unpacked(store, tmp_path, unified(*map(placed, ESCAPES[name])))
    except CorruptImage:
        target = tmp_path / "target"
    assert everything_in(outside) == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    assert (outside / "precious").stat().st_nlink == 1
    assert [path for path in everything_in(tmp_path) if path.endswith("evil")] in (
        [],
        [str((target / outside.relative_to("/") / "evil").relative_to(tmp_path))],  # its slash was stripped
    ) or name == "absolute"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (tar(("metadata.yaml", METADATA), link("rootfs", "/etc")), "rootfs is not a folder"),
        (tar(("metadata.yaml", METADATA), ("rootfs", b"file")), "rootfs is not a folder"),
        (
            tar(("metadata.yaml", METADATA), ("rootfs/", b""), link("templates", "/etc")),
            "templates is not a folder",
        ),
        (
            tar(("metadata.yaml", METADATA), ("rootfs/", b""), link("templates/shadow", "/etc/shadow")),
            "template shadow is not a file",
        ),
        (
            tar(("metadata.yaml", METADATA), ("rootfs/", b""), link("metadata.yaml", "/etc/shadow")),
            "metadata.yaml is not a file",
        ),
    ],
)
def test_links_in_place_of_what_the_host_reads_are_refused(
    store: ImageStore, tmp_path: Path, data: bytes, complaint: str
) -> None:
    with pytest.raises(CorruptImage, match=complaint):
        unpacked(store, tmp_path, data)


def test_a_split_images_metadata_cannot_send_the_rootfs_elsewhere(
    store: ImageStore, tmp_path: Path, squashfs: bytes
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    metadata = tar(("metadata.yaml", METADATA), link("rootfs", str(outside)))
    with pytest.raises(CorruptImage, match="must not hold a rootfs"):
        unpacked(store, tmp_path, metadata, squashfs)
    assert everything_in(outside) == []


def test_hard_links_and_sparse_files_stay_so(store: ImageStore, tmp_path: Path) -> None:
    target = unpacked(store, tmp_path, unified(link("rootfs/again", "rootfs/etc/issue", tarfile.LNKTYPE)))
    assert (target / "rootfs/again").samefile(target / "rootfs/etc/issue")
    shutil.rmtree(target)
