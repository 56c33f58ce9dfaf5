"""A member's certificate is renewed step by step; it can be cut short after each, and goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid, Unavailable
from cluster.membership.certificates import fingerprints_of
from cluster.membership.model import MEMBERS, Member
from cluster.tls.certificates import KeyPair, adopt, ensure, make, prepared
from lxdpy.daemon.context import Daemon
from lxdpy.resources.cluster import renewal
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon

OTHER = "9" * 12


class Others:
    """The other member, which trusts what it is asked to once it is there; and this one's membership."""

    def __init__(self) -> None:
        self.there = True
        self.asked: list[str] = []
        self.rekeys = 0

    async def ask(self, owner: str, method: str, path: str, body: object) -> None:
        self.asked.append(owner)
        if not self.there:
            raise Unavailable("Member n2 is not reachable")

    async def rekeyed(self) -> None:
        self.rekeys += 1

    def own_address(self) -> str:
        return "10.0.0.1:8443"

    def hostname(self) -> str:
        return "n1"


class Scene:
    def __init__(self, folder: Path) -> None:
        self.keys: KeyPair = ensure(folder, "server")
        self.before = self.keys.fingerprint()
        self.others = Others()
        self.store = LocalStore()
        own = self.store.state.get(MEMBERS, MEMBER_ID)
        self.store.put(
            MEMBERS, own.id, Member(own.id, "n1", fingerprint=self.before, certificate=self.keys.pem())
        )
        self.store.put(MEMBERS, OTHER, Member(OTHER, "n2", address="10.0.0.2:8443", status="ready"))
        parts: dict[str, Any] = {"keys": self.keys, "forwarder": self.others, "membership": self.others}
        self.daemon: Daemon = local_daemon(folder, self.store, **parts)

    @property
    def row(self) -> Member:
        return self.store.state.get(MEMBERS, MEMBER_ID)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "LINGER", 0.0)


def run(test: Callable[[Scene], Awaitable[None]], folder: Path) -> None:
    async def within() -> None:
        await test(Scene(folder))

    asyncio.run(within())


def test_it_is_announced_trusted_shown_and_the_old_one_dropped(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        new = await renewal.begin(scene.daemon, "", "")
        assert fingerprints_of(scene.row) == {scene.before, new}
        assert scene.keys.fingerprint() == scene.before, "nobody was asked yet"
        await renewal.settle(scene.daemon)
        assert scene.others.asked == [OTHER]
        assert (scene.keys.fingerprint(), scene.row.fingerprint) == (new, new)
        assert fingerprints_of(scene.row) == {new}
        assert scene.others.rekeys == 1
        await renewal.renewed(scene.daemon, new)

    run(test, tmp_path)


def test_it_is_not_shown_before_all_trust_it(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.others.there = False
        await renewal.begin(scene.daemon, "", "")
        with pytest.raises(Unavailable, match="Member n2 does not know the new certificate yet"):
            await renewal.settle(scene.daemon)
        assert (scene.keys.fingerprint(), scene.others.rekeys) == (scene.before, 0)
        scene.others.there = True
        await renewal.settle(scene.daemon)
        assert scene.keys.fingerprint() != scene.before

    run(test, tmp_path)


def test_a_crash_before_the_log_knows_that_it_is_shown_is_mended(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        new = await renewal.begin(scene.daemon, "", "")
        adopt(scene.keys)
        await renewal.settle(scene.daemon)
        assert fingerprints_of(scene.row) == {new}
        assert scene.others.asked == [], "they were asked before"

    run(test, tmp_path)


def test_an_announcement_whose_key_is_lost_is_taken_back(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        await renewal.begin(scene.daemon, "", "")
        prepared(scene.keys).key.unlink()
        await renewal.settle(scene.daemon)
        assert fingerprints_of(scene.row) == {scene.before}
        await renewal.settle(scene.daemon)
        assert scene.keys.fingerprint() == scene.before

    run(test, tmp_path)


def test_a_given_pair_is_used_and_has_to_be_one(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        certificate, key = make("given")
        await renewal.begin(scene.daemon, certificate, key)
        await renewal.settle(scene.daemon)
        assert scene.keys.pem() == certificate
        with pytest.raises(Invalid, match="does not belong"):
            await renewal.begin(scene.daemon, make("other")[0], key)
        with pytest.raises(Invalid, match="This is the certificate that the member has"):
            await renewal.begin(scene.daemon, certificate, key)
        assert fingerprints_of(scene.row) == {scene.keys.fingerprint()}

    run(test, tmp_path)


def test_without_an_announcement_nothing_is_done(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        await renewal.settle(scene.daemon)
        assert (scene.others.asked, scene.keys.fingerprint()) == ([], scene.before)

    run(test, tmp_path)
