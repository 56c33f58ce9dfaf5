import pytest

from cluster.errors import Invalid
from lxdpy.resources.compression import BACKUPS, IMAGES, compression_of
from lxdpy.resources.projects.model import PROJECTS, Project
from tests.lxdpy.fakes import LocalStore


def test_the_compression_is_the_requests_then_the_projects_then_the_servers() -> None:
    store = LocalStore()
    store.put(PROJECTS, "p", Project("p", config={"images.compression_algorithm": "zstd -3"}))
    store.put(PROJECTS, "q", Project("q"))
    assert compression_of(store.state, "p", IMAGES, "none") == "none"
    assert compression_of(store.state, "p", IMAGES, "") == "zstd -3"
    assert compression_of(store.state, "p", BACKUPS, "") == "gzip"
    assert compression_of(store.state, "q", IMAGES, "squashfs") == "squashfs"
    with pytest.raises(Invalid, match='"gzip; rm"'):
        compression_of(store.state, "q", IMAGES, "gzip; rm")
