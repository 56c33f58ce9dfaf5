import pytest

from cluster.errors import Invalid
from cluster.membership.tokens import JoinToken, parse
from lxdpy.cli import address
from tests.lxdpy.cli.server import Begun, Cli, Refusal

TOKEN = JoinToken("n2", "ab" * 32, ["10.0.0.1:8443"], "cd" * 32)


def _configured(lxdpy: Cli, **config: str) -> None:
    lxdpy.server.answers["GET /1.0"] = {"config": {k.replace("_", "."): v for k, v in config.items()}}
    lxdpy.server.answers["GET /1.0/networks"] = [{"name": "lxdpybr0", "managed": True}]


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "first_address", lambda managed: f"10.9.9.9 not {sorted(managed)}")


def test_enabling_takes_the_address_that_is_given(lxdpy: Cli) -> None:
    lxdpy.server.answers["PUT /1.0/cluster"] = Begun({})
    assert lxdpy.ok("cluster", "enable", "n1", "--address", "10.0.0.1") == "Clustering enabled\n"
    assert lxdpy.server.changes()[0].body == {
        "server_name": "n1",
        "enabled": True,
        "server_address": "10.0.0.1",
    }


def test_enabling_takes_the_configured_address(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0"] = {"config": {"core.https_address": "10.0.0.1:8443"}}
    lxdpy.ok("cluster", "enable", "n1")
    assert lxdpy.server.changes()[0].body["server_address"] == "10.0.0.1:8443"


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("configured", "port"),
    [("", "8443"), (":9000", "9000"), ("0.0.0.0:9000", "9000"), ("[::]:9000", "9000"), ("[::]", "8443")],
)
def test_a_wildcard_gives_the_port_of_the_first_address(lxdpy: Cli, configured: str, port: str) -> None:
    lxdpy.server.answers["GET /1.0"] = {"config": {"core.https_address": configured}}
    lxdpy.server.answers["GET /1.0/networks"] = [
        {"name": "lxdpybr0", "managed": True},
        {"name": "eth0", "managed": False},
    ]
    lxdpy.ok("cluster", "enable", "n1")
    assert lxdpy.server.changes()[0].body["server_address"] == f"10.9.9.9 not ['lxdpybr0']:{port}"


def test_a_failed_operation_is_said_in_its_words(lxdpy: Cli) -> None:
    lxdpy.server.answers["PUT /1.0/cluster"] = Begun("The log is full")
    assert lxdpy.fails("cluster", "enable", "n1", "--address", "10.0.0.1") == "Error: The log is full"


def test_a_token_is_printed_alone(lxdpy: Cli) -> None:
    metadata = {
        "serverName": "n2",
        "secret": TOKEN.secret,
        "fingerprint": TOKEN.fingerprint,
        "addresses": TOKEN.addresses,
        "expiresAt": "2027-01-01T00:00:00Z",
    }
    lxdpy.server.answers["POST /1.0/cluster/members"] = Begun({}, metadata)
    printed = lxdpy.ok("cluster", "add", "n2")
    token = parse(printed)
    assert (token.server_name, token.secret, token.expires_at) == ("n2", TOKEN.secret, "2027-01-01T00:00:00Z")
    assert lxdpy.server.changes()[0].body == {"server_name": "n2"}


def test_a_token_tells_the_joiner_its_name(lxdpy: Cli) -> None:
    lxdpy.server.answers["PUT /1.0/cluster"] = Begun({})
    said = lxdpy.ok("cluster", "join", TOKEN.printed(), "--address", "10.0.0.2:8443")
    assert said == "Joined the cluster as n2\n"
    assert lxdpy.server.changes()[0].body == {
        "server_name": "n2",
        "enabled": True,
        "cluster_token": TOKEN.printed(),
        "server_address": "10.0.0.2:8443",
    }


def test_a_token_can_come_from_stdin_so_that_nobody_sees_it(lxdpy: Cli) -> None:
    lxdpy.ok("cluster", "join", "-", "--address", "10.0.0.2", stdin=TOKEN.printed() + "\n")
    assert lxdpy.server.changes()[0].body["cluster_token"] == TOKEN.printed()


def test_what_is_no_token_is_refused_before_anything_is_asked(lxdpy: Cli) -> None:
    assert lxdpy.fails("cluster", "join", "abc").startswith("Error: Not a join token")
    assert lxdpy.server.asked == []


def test_members_are_listed(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/cluster"] = {"enabled": True, "server_name": "n1"}
    row = {
        "server_name": "n1", "url": "https://10.0.0.1:8443", "roles": ["database-leader", "database"],
        "architecture": "x86_64", "failure_domain": "default", "description": "[red]it is[/red]",
        "status": "Online", "message": "Fully operational",
    }  # fmt: skip
    lxdpy.server.answers["GET /1.0/cluster/members"] = [row]
    printed = lxdpy.ok("cluster", "list")
    for word in ("n1", "https://10.0.0.1:8443", "database-leader", "ONLINE", "[red]it is[/red]"):
        assert word in printed


def test_a_server_alone_has_no_members_to_list(lxdpy: Cli) -> None:
    lxdpy.server.answers["GET /1.0/cluster"] = {"enabled": False, "server_name": ""}
    assert lxdpy.fails("cluster", "list") == "Error: This server isn't part of a cluster"


def test_a_member_is_removed_by_force_only_when_told(lxdpy: Cli) -> None:
    lxdpy.server.answers["DELETE /1.0/cluster/members/n2"] = Refusal(409, "Member n2 is offline")
    assert lxdpy.fails("cluster", "remove", "n2") == "Error: Member n2 is offline"
    lxdpy.server.answers.clear()
    lxdpy.ok("cluster", "remove", "n2", "--force")
    assert [one.path for one in lxdpy.server.changes()] == [
        "/1.0/cluster/members/n2",
        "/1.0/cluster/members/n2?force=1",
    ]


def test_without_a_daemon_the_socket_is_named(lxdpy: Cli) -> None:
    from click.testing import CliRunner

    from lxdpy.cli.main import cli

    result = CliRunner().invoke(cli, ["cluster", "list"])
    assert result.exit_code == 1
    assert result.stderr == f"Error: Cannot connect to {lxdpy.socket}: No such file or directory\n"


def test_this_host_has_an_address_or_says_what_to_do() -> None:
    try:
        found = address.first_address(set())
    except Invalid as failure:
        found = failure.message
    assert "--address" in found or not found.startswith(("127.", "[::1"))
