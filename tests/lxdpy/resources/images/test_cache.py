"""Images that were got for instances: found again, kept up to date, and dropped when nobody uses them."""

from typing import Any

import msgspec
import pytest

from cluster.errors import Conflict
from lxdpy.resources.images.cache import DAY, asked_again, cached, expired, kept
from lxdpy.resources.images.commands import AddImage, ExpireImage, KeepImage, ReplaceImage, UseImage
from lxdpy.resources.images.model import IMAGES, Asked, Image, Remote
from lxdpy.resources.instances.model import INSTANCES, Source
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.server.model import SETTINGS, Setting
from tests.lxdpy.fakes import LocalStore
from tests.lxdpy.resources.instances.scene import instance, ready_store

SERVER = "https://images.test"
ASKED = Asked(SERVER, "alpine/3.18", protocol="simplestreams")
REMOTE = Remote(SERVER, "alpine/3.18", protocol="simplestreams")
NOW = 1_800_000_000.0


def image(fingerprint: str = "f1", **known: Any) -> Image:
    row = Image(
        "default", fingerprint, architecture="x86_64", remote=REMOTE, cached=True, auto_update=True,
        last_used_at=NOW,
    )  # fmt: skip
    return msgspec.structs.replace(row, **known)


def with_images(*rows: Image, **settings: str) -> LocalStore:
    store = ready_store()
    for row in rows:
        store.put(IMAGES, row.key, row)
    for key, value in settings.items():
        store.put(SETTINGS, f"images.{key}", Setting(value))
    return store


def test_what_is_kept_up_to_date_is_not_asked_for_again() -> None:
    store = with_images(image(), image("f0", created_at=-1.0))
    assert kept(store.state, "default", ASKED, "") == image()
    assert kept(store.state, "default", ASKED, "x86_64") == image()
    assert kept(store.state, "default", ASKED, "aarch64") is None
    assert kept(store.state, "own", ASKED, "") is None


@pytest.mark.parametrize(
    "other",
    [{"server": "https://other.test"}, {"alias": "alpine"}, {"certificate": "x"}, {"protocol": "lxd"}],
)
def test_what_was_asked_of_another_is_another(other: dict[str, str]) -> None:
    known = {"server": SERVER, "alias": "alpine/3.18", "protocol": "simplestreams"}
    assert kept(with_images(image()).state, "default", Asked(**{**known, **other}), "") is None


def test_what_is_never_looked_after_is_asked_for_each_time() -> None:
    assert kept(with_images(image(auto_update=False)).state, "default", ASKED, "") is None
    store = with_images(image(), auto_update_interval="0")
    assert kept(store.state, "default", ASKED, "") is None
    store.put(PROJECTS, "default", Project("default", config={"images.auto_update_interval": "3"}))
    assert kept(store.state, "default", ASKED, "") == image()


def test_a_fingerprint_means_the_image_whoever_brought_it() -> None:
    store = with_images(Image("default", "f1"))
    assert kept(store.state, "default", Asked(SERVER, fingerprint="f1"), "") == Image("default", "f1")
    assert kept(store.state, "default", Asked(SERVER, "f1"), "") is None


def test_images_got_for_instances_are_kept_new_unless_it_is_switched_off() -> None:
    assert cached(ready_store().state, "default", NOW).auto_update
    assert not cached(with_images(auto_update_cached="false").state, "default", NOW).auto_update


def test_cached_images_expire_when_nobody_has_used_them_for_days() -> None:
    old = image("old", last_used_at=NOW - 10 * DAY - 1)
    store = with_images(old, image("new"), image("kept", last_used_at=1.0, cached=False))
    assert [command.key for command in expired(store.state, NOW)] == [old.key]
    store.put(SETTINGS, "images.remote_cache_expiry", Setting("0"))
    assert expired(store.state, NOW) == []
    store.put(PROJECTS, "default", Project("default", config={"images.remote_cache_expiry": "11"}))
    assert expired(store.state, NOW) == []


def test_an_image_of_which_an_instance_is_being_made_stays() -> None:
    store = with_images(image(last_used_at=1.0))
    row = instance(store, "c1", status="Creating")
    store.put(INSTANCES, row.key, msgspec.structs.replace(row, source=Source("image", "f1")))
    for command in (ExpireImage("default/f1", NOW), ReplaceImage("default/f1", image("f2"))):
        with pytest.raises(Conflict):
            store.run(command)
    assert set(store.state.rows(IMAGES)) == {"default/f1"}


def test_one_that_was_used_meanwhile_stays() -> None:
    store = LocalStore()
    store.run(AddImage(image(last_used_at=1.0)))
    store.run(UseImage("default/f1"))
    with pytest.raises(Conflict):
        store.run(ExpireImage("default/f1", NOW))
    store.run(ExpireImage("default/f1", store.now + 1))
    assert not store.state.rows(IMAGES)


def test_one_that_somebody_asked_for_is_no_more_cached() -> None:
    store = LocalStore()
    store.run(AddImage(image()))
    store.run(KeepImage("default/f1", public=True, auto_update=False))
    store.run(KeepImage("default/f1", public=False, auto_update=True))  # it is not: nothing changes
    row = store.state.get(IMAGES, "default/f1")
    assert (row.cached, row.public, row.auto_update) == (False, True, False)


def test_a_newer_one_is_asked_for_as_the_first_was() -> None:
    assert asked_again(image()) == ASKED
    assert asked_again(image(remote=Remote(SERVER, ""))) is None
