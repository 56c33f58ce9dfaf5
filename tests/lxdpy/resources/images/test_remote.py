import asyncio
import time
from pathlib import Path

import pytest

from cluster.errors import Error, Invalid, NotFound, Unsupported
from cluster.membership.commands import CreateToken
from cluster.membership.model import Token
from cluster.membership.tokens import hash_of
from lxdpy.resources.images.commands import AddImage, CreateAlias, ReplaceImage
from lxdpy.resources.images.handlers import routes
from lxdpy.resources.images.model import ALIASES, IMAGES, Alias, Image, ImageSource, Remote
from lxdpy.resources.images.remote import expire, refresh
from lxdpy.resources.images.remote_lxd import decoded
from lxdpy.resources.images.shown import opens, token_of, wire
from lxdpy.resources.images.source import asked_of
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import LocalStore, local_daemon
from tests.lxdpy.rest.members import members

SOURCE = {"server": "https://10.0.0.1:8443", "alias": "bb"}


def test_a_secret_opens_its_image_only_and_not_for_ever() -> None:
    store = LocalStore()
    one, other = Image("default", "f1"), Image("default", "f2")
    now = time.time()
    for name, secret, expires in (("f1", "good", now + 60), ("f1", "old", now - 1)):
        token = Token(secret, "image", name, hash_of(secret), now, expires, projects=("default",))
        store.run(CreateToken(token))
    store.run(CreateToken(Token("t", "client", "f1", hash_of("trust"), now, now + 60, projects=("default",))))
    assert opens(store.state, one, "good")
    assert not opens(store.state, other, "good")
    assert not opens(store.state, Image("own", "f1"), "good")
    assert not any(opens(store.state, one, secret) for secret in ("", "old", "trust", "other"))


def test_a_newer_image_takes_the_aliases_of_the_one_it_replaces() -> None:
    store = LocalStore()
    for project in ("default", "own"):
        store.run(AddImage(Image(project, "f1")))
        store.run(CreateAlias(Alias(project, "bb", "f1")))
    store.run(ReplaceImage("own/f1", Image("own", "f2", size=2)))
    assert set(store.state.rows(IMAGES)) == {"default/f1", "own/f2"}
    assert {key: row.target for key, row in store.state.rows(ALIASES).items()} == {
        "default/bb": "f1",
        "own/bb": "f2",
    }


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"server": "http://10.0.0.1"}, Invalid),
        ({"server": "/etc"}, Invalid),
        ({"alias": ""}, Invalid),
        ({"server": "https://10.0.0.1?x"}, Invalid),
        ({"certificate": "none"}, Invalid),
        ({"protocol": "direct"}, Unsupported),
    ],
)
def test_a_source_that_cannot_be_asked_is_refused(wrong: dict[str, str], kind: type[Error]) -> None:
    assert asked_of(ImageSource("image", **SOURCE)).protocol == "lxd"
    with pytest.raises(kind):
        asked_of(ImageSource("image", **{**SOURCE, **wrong}))


@pytest.mark.parametrize(
    "answer", [None, [], {"fingerprint": 1}, {"fingerprint": "../x"}, {"fingerprint": ""}]
)
def test_what_another_server_says_is_not_believed(answer: object) -> None:
    with pytest.raises(Error, match="is no image"):
        decoded(answer)


def test_what_was_uploaded_or_got_by_its_fingerprint_has_nothing_newer(tmp_path: Path) -> None:
    row = Image("default", "f1", remote=Remote("https://10.0.0.1:8443", ""))

    async def go() -> None:
        daemon = local_daemon(tmp_path)
        with pytest.raises(NotFound, match="Image source not found"):
            await refresh(daemon, Image("default", "f1"))
        assert not await refresh(daemon, row)

    asyncio.run(go())
    assert wire(row, [])["update_source"] == {
        "alias": "", "certificate": "", "protocol": "lxd", "server": "https://10.0.0.1:8443",
        "image_type": "container",
    }  # fmt: skip


def test_a_secret_to_have_an_image_is_none_to_bring_one() -> None:
    store, now = LocalStore(), time.time()
    for kind in ("image", "upload"):
        token = Token(kind, kind, "f1", hash_of(kind), now, now + 60, projects=("default",))
        store.run(CreateToken(token))
    found = token_of(store.state, "upload", "default", "f1", "upload")
    assert found is not None
    assert token_of(store.state, "upload", "default", "f1", "image") is None
    assert token_of(store.state, "upload", "own", "f1", "upload") is None
    assert not opens(store.state, Image("default", "f1"), "upload")


def test_strangers_bring_nothing_without_a_secret(tmp_path: Path) -> None:
    async def go() -> None:
        async with members(tmp_path, [routes]) as made:
            made.all[0].store.run(CreateDefaults())
            for body in (
                {},
                {"source": {"mode": "push", "fingerprint": "f1"}},
                {"source": {"type": "image"}},
            ):
                status, answer = await made.ask(0, "POST", "/1.0/images", body, own=made.client)
                assert (status, answer["error"]) == (403, "not authorized")

    asyncio.run(go())


def test_what_nobody_used_for_long_goes_by_itself(tmp_path: Path) -> None:
    store = LocalStore()
    store.run(CreateDefaults())
    for fingerprint, used in (("f1", 1.0), ("f2", time.time())):
        store.run(AddImage(Image("default", fingerprint, cached=True, last_used_at=used)))

    async def go() -> None:
        await expire(local_daemon(tmp_path, store))

    asyncio.run(go())
    assert set(store.state.rows(IMAGES)) == {"default/f2"}
