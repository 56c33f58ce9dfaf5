import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.membership.model import TOKENS, Token
from cluster.membership.tokens import hash_of
from cluster.tls.certificates import fingerprint_of, make, pem_to_der
from lxdpy.resources.certificates.handlers import routes
from lxdpy.resources.certificates.model import CERTIFICATES, Certificate
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import Local, LocalStore, local_daemon, serving
from tests.lxdpy.rest.members import Members, members

LIST = "/1.0/certificates"


def in_base64(pem: str) -> str:
    """As clients send one."""
    return base64.b64encode(pem_to_der(pem)).decode()


def nameless() -> str:
    """PEM of a certificate that does not say whose it is."""
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder().subject_name(nobody).issuer_name(nobody).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    made = made.not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def as_admin(root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(local_daemon(root, store), routes) as client:
            await check(client)

    store.run(CreateDefaults())
    asyncio.run(main())


def among_members(root: Path, check: Callable[[Members], Awaitable[None]]) -> None:
    async def main() -> None:
        async with members(root, [routes]) as made:
            await check(made)

    asyncio.run(main())


def test_a_certificate_is_trusted_changed_and_withdrawn(tmp_path: Path) -> None:
    store, pem = LocalStore(), make("laptop")[0]
    path = f"{LIST}/{fingerprint_of(pem)}"

    async def check(client: Local) -> None:
        made = await client.ask("POST", LIST, {"type": "client", "certificate": in_base64(pem)})
        assert made["status_code"] == 200
        shown = (await client.ask("GET", path))["metadata"]
        assert shown == {
            "name": "root@laptop", "type": "client", "restricted": False, "projects": [],
            "certificate": pem, "fingerprint": fingerprint_of(pem),
        }  # fmt: skip
        await client.ask("PATCH", path[:-50], {"restricted": True, "projects": ["default"]})
        row = store.state.get(CERTIFICATES, fingerprint_of(pem))
        assert (row.name, row.restricted, row.projects) == ("root@laptop", True, ("default",))
        await client.ask("DELETE", path)
        assert (await client.ask("GET", LIST))["metadata"] == []

    as_admin(tmp_path, store, check)


def test_a_certificate_without_any_name_is_called_by_its_fingerprint(tmp_path: Path) -> None:
    store, pem = LocalStore(), nameless()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"type": "client", "certificate": pem})
        mark = fingerprint_of(pem)
        assert store.state.get(CERTIFICATES, mark).name == mark[:12]

    as_admin(tmp_path, store, check)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "Client is already trusted"),
        ({"certificate": "zzz"}, 400, "Not a certificate: base64 of its DER form, or PEM"),
        ({"certificate": "aGVsbG8="}, 400, "Not a certificate: base64 of its DER form, or PEM"),
        ({"certificate": in_base64(make("x")[0]), "type": "bad"}, 400,
         'Invalid certificate type "bad": client, server or metrics'),
        ({"certificate": in_base64(make("x")[0]), "type": "client", "projects": ["p"]}, 404,
         "Project not found: p"),
        ({"token": True, "type": "metrics"}, 400, "Tokens can only be issued for client certificates"),
    ],
)  # fmt: skip
def test_what_cannot_be_trusted_is_refused(
    tmp_path: Path, body: dict[str, Any], status: int, said: str
) -> None:
    store = LocalStore()

    async def check(client: Local) -> None:
        answer = await client.ask("POST", LIST, body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    as_admin(tmp_path, store, check)
    assert not store.state.rows(CERTIFICATES)


def test_members_certificates_are_shown_and_cannot_be_changed(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        _, answer = await made.ask(0, "GET", f"{LIST}?recursion=1")
        assert {(row["name"], row["type"]) for row in answer["metadata"]} == {
            ("n1", "server"),
            ("n2", "server"),
        }
        path = f"{LIST}/{made.all[1].keys.fingerprint()}"
        for method, body in (("DELETE", None), ("PATCH", {"name": "x"}), ("PUT", {"name": "x"})):
            status, answer = await made.ask(0, method, path, body)
            assert (status, answer["error"]) == (400, "The certificate belongs to cluster member n2")

    among_members(tmp_path, check)


def test_a_stranger_learns_nothing_but_that_it_is_one(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        for body in (
            "{}",
            '{"type": "bad"}',
            '{"password": "wrong"}',
            '{"certificate": "z", "projects": ["p"]}',
        ):
            status, answer = await made.ask(0, "POST", LIST, msgspec.Raw(body.encode()), own=made.client)
            assert (status, answer["error"]) == (403, "not authorized")
        assert not made.all[0].store.state.rows(CERTIFICATES)

    among_members(tmp_path, check)


def test_a_restricted_client_renews_its_certificate_and_changes_nothing_else(tmp_path: Path) -> None:
    """Of others it changes nothing at all."""

    async def check(made: Members) -> None:
        store, mine, fresh = made.all[0].store, made.client.fingerprint(), make("fresh")[0]
        row = Certificate(mine, made.client.pem(), "laptop", restricted=True, projects=("p",))
        for one in (row, Certificate("other", fresh, "other", restricted=True, projects=("p",))):
            store.put(CERTIFICATES, one.fingerprint, one)
        store.put(PROJECTS, "p", Project("p"))
        new = {"name": "laptop", "type": "client", "restricted": True, "projects": ["p"]}
        wider: list[dict[str, object]] = [
            {"name": "x"},
            {"restricted": False},
            {"projects": ["p", "default"]},
        ]
        for change in wider:
            for method, body in (("PATCH", change), ("PUT", new | change)):
                status, answer = await made.ask(0, method, f"{LIST}/{mine}", body, own=made.client)
                assert (status, answer["error"]) == (403, "Only the certificate can be changed")
        body = {"certificate": in_base64(fresh)}
        assert (await made.ask(0, "PATCH", f"{LIST}/other", body, own=made.client))[0] == 403
        assert (await made.ask(0, "PATCH", f"{LIST}/{mine}", body, own=made.client))[0] == 200
        known = store.state.rows(CERTIFICATES)
        assert mine not in known
        after = known[fingerprint_of(fresh)]
        assert (after.name, after.restricted, after.projects) == ("laptop", True, ("p",))

    among_members(tmp_path, check)


def test_who_withdraws_its_own_certificate_is_answered_and_then_a_stranger(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        mine = made.client.fingerprint()
        made.all[0].store.put(CERTIFICATES, mine, Certificate(mine, made.client.pem(), "laptop"))
        for status in (200, 403):
            assert (await made.ask(0, "DELETE", f"{LIST}/{mine}", own=made.client))[0] == status

    among_members(tmp_path, check)


def test_who_is_trusted_is_told_so_instead_of_using_a_token(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        status, answer = await made.ask(0, "POST", LIST, {"password": "s" * 64})
        assert (status, answer["error"]) == (400, "Client is already trusted")

    among_members(tmp_path, check)


def test_a_strangers_token_says_what_it_may_and_serves_once(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        store = made.all[0].store
        token = Token("t1", "client", "alice", hash_of("s" * 64), 1.0, restricted=True, projects=("p",))
        store.put(TOKENS, token.id, token)
        body = {"type": "server", "name": "root", "password": "s" * 64}
        assert (await made.ask(0, "POST", LIST, body, own=made.client))[0] == 201
        row = store.state.get(CERTIFICATES, made.client.fingerprint())
        assert (row.name, row.type, row.restricted, row.projects) == ("alice", "client", True, ("p",))
        assert not store.state.rows(TOKENS)
        store.put(CERTIFICATES, row.fingerprint, None)
        assert (await made.ask(0, "POST", LIST, body, own=made.client))[0] == 403

    among_members(tmp_path, check)
