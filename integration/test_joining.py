"""Members join by a token that is for one name, one use and some hours."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_json, running
from lxdpy.dev.api import Refused
from lxdpy.dev.faults.scene import CLOCK
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with running(members=2, gpus=0, joined=False) as made:
        first = made.members[0]
        first.furnish()
        lxc(first, "config", "set", "core.https_address", first.address)
        lxc(first, "cluster", "enable", first.name)
        yield made


@pytest.fixture
def apart(two: Cluster) -> Iterator[Cluster]:
    """Two daemons, the first of which is a cluster; the second has not joined."""
    yield two
    first, second = two.members
    for member in two.members:
        member.start()
    lxc(first, "config", "unset", "cluster.join_token_expiry")
    if "n2" in names(first):
        lxc(first, "cluster", "remove", "n2", "--force", "--yes")
    eventually(lambda: is_alone(second), within=20)  # or it begins anew in the next test


def is_alone(member: Member) -> bool:
    try:
        return not member.ask("GET", "/1.0/cluster")["enabled"]
    except Refused:  # it is about to forget the cluster
        return False


def names(member: Member) -> list[str]:
    return sorted(row["server_name"] for row in lxc_json(member, "cluster", "list"))


def changed(token: str, **fields: str) -> str:
    return base64.b64encode(json.dumps(json.loads(base64.b64decode(token)) | fields).encode()).decode()


def test_one_command_joins_and_a_token_serves_once(apart: Cluster) -> None:
    first, second = apart.members
    token = lxc(first, "cluster", "add", second.name).split()[-1]
    assert second.name in lxc(first, "cluster", "list-tokens")
    lxc(second, "config", "set", "core.https_address", second.address)
    second.lxdpy("cluster", "join", token)
    assert names(second) == names(first) == ["n1", "n2"]
    assert second.name not in lxc(first, "cluster", "list-tokens")
    eventually(
        lambda: {row["status"] for row in lxc_json(second, "cluster", "list")} == {"Online"}, within=15
    )
    assert [pool["name"] for pool in second.ask("GET", "/1.0/storage-pools?recursion=1")] == ["default"]
    for member in apart.members:
        assert lxc(member, "config", "get", "cluster.https_address").strip() == member.address


def test_a_joiner_puts_its_part_of_a_pool_where_it_was_told_to(apart: Cluster) -> None:
    first, second = apart.members
    source = apart.state / "disks of n2"
    source.mkdir()
    own = {"entity": "storage-pool", "name": "default", "key": "source", "value": str(source)}
    body = {"server_name": "n2", "enabled": True, "cluster_token": first.token("n2")}
    second.ask("PUT", "/1.0/cluster", body | {"server_address": second.address, "member_config": [own]})
    eventually(lambda: any(source.iterdir()), within=15)
    shown = first.ask("GET", "/1.0/storage-pools/default?target=n2")
    assert (shown["config"]["source"], shown["locations"]) == (str(source), ["n1", "n2"])


def test_a_wrong_secret_joins_nobody_and_spends_nothing(apart: Cluster) -> None:
    first, second = apart.members
    token = first.token(second.name)
    with pytest.raises(Refused):
        second.join(changed(token, secret="0" * 64))
    assert names(first) == ["n1"]
    second.join(token)
    assert names(first) == ["n1", "n2"]


def test_a_token_of_another_cluster_is_not_followed(apart: Cluster) -> None:
    first, second = apart.members
    with pytest.raises(Refused):
        second.join(changed(first.token(second.name), fingerprint="0" * 64))
    assert names(first) == ["n1"]


def test_a_revoked_token_joins_nobody(apart: Cluster) -> None:
    first, second = apart.members
    token = first.token(second.name)
    lxc(first, "cluster", "revoke-token", second.name)
    with pytest.raises(Refused):
        second.join(token)


def test_an_expired_token_joins_nobody(apart: Cluster) -> None:
    first, second = apart.members
    lxc(first, "config", "set", "cluster.join_token_expiry", "0M")
    token = first.token(second.name)
    with pytest.raises(Refused):
        second.join(token)
    assert names(first) == ["n1"]


def test_a_used_token_is_refused(apart: Cluster) -> None:
    first, second = apart.members
    token = first.token(second.name)
    second.join(token)
    lxc(first, "cluster", "remove", second.name, "--force", "--yes")
    with pytest.raises(Refused):
        second.join(token)


def status(member: Member, name: str) -> str:
    return next(
        (row["status"] for row in lxc_json(member, "cluster", "list") if row["server_name"] == name), ""
    )


@pytest.mark.parametrize("step", ["identity.saved", "join.became", "join.introduced"])
def test_a_join_that_a_crash_cuts_short_goes_on_by_itself(apart: Cluster, step: str) -> None:
    first, second = apart.members
    second.stop()
    second.start(LXDPY_FAILPOINTS=f"{step}=crash")
    with pytest.raises((Refused, OSError)):
        second.join(first.token(second.name))
    eventually(lambda: second.pid() is None, within=5)
    eventually(lambda: status(first, "n2") == "Offline", within=10)
    second.start()
    eventually(lambda: [status(member, "n2") for member in apart.members] == ["Online"] * 2, within=20)
    assert first.ask("GET", "/1.0/storage-pools/default")["locations"] == ["n1", "n2"]
    lxc(second, "profile", "set", "default", "user.joined", step)


def test_what_a_joiner_was_just_noting_does_not_undo_its_join(apart: Cluster) -> None:
    first, second = apart.members
    second.stop()
    second.start(LXDPY_FAILPOINTS="identity.followed=delay:2@1,join.became=delay:2")
    lxc(second, "config", "set", "core.https_address", second.address.replace(":8443", ":8444"))
    second.join(first.token("n2"))
    second.stop()
    second.start()
    eventually(lambda: [status(member, "n2") for member in apart.members] == ["Online"] * 2, within=20)


@pytest.mark.parametrize("who", ["joiner", "member"])
def test_a_join_that_nobody_knows_of_on_both_sides_can_be_done_again(apart: Cluster, who: str) -> None:
    """The token is spent: a new one takes the place of what was begun."""
    first, second = apart.members
    dying, step = (second, "join.accepted") if who == "joiner" else (first, "join.recorded")
    dying.stop()
    dying.start(LXDPY_FAILPOINTS=f"{step}=crash")
    with pytest.raises((Refused, OSError)):
        second.join(first.token(second.name))
    eventually(lambda: dying.pid() is None, within=5)
    dying.start()
    assert not second.ask("GET", "/1.0/cluster")["enabled"]
    eventually(lambda: status(first, "n2") == "Offline", within=10)
    token = first.token(second.name)
    eventually(lambda: names(first) == ["n1"], within=10)
    second.join(token)
    assert names(first) == names(second) == ["n1", "n2"]


def test_a_server_whose_clock_is_off_is_told_so_and_keeps_its_token(apart: Cluster) -> None:
    first, second = apart.members
    token = first.token(second.name)
    for seconds, said in (("3600", "3600 s ahead of"), ("-3600", "3600 s behind"), ("0", "")):
        second.stop()
        Path(f"{second.folder}.clock").write_text(seconds)
        second.start(PYTHONPATH=str(CLOCK))
        assert names(first) == ["n1"]
        assert said in refusal(second, token)
    assert names(first) == names(second) == ["n1", "n2"]


def refusal(member: Member, token: str) -> str:
    """Why the member could not join; "" if it did."""
    try:
        member.join(token)
    except Refused as reason:
        return str(reason)
    return ""


def test_the_wrong_cluster_certificate_is_noticed_before_anything_is_told(apart: Cluster) -> None:
    first, second = apart.members
    made = first.ask("POST", "/1.0/cluster/members", {"server_name": "n2"})
    body = {
        "server_name": "n2", "enabled": True, "server_address": second.address,
        "cluster_address": first.address, "cluster_password": made["secret"],
    }  # fmt: skip
    wrong = (second.folder / "server.crt").read_text()
    with pytest.raises(Refused, match="does not have the certificate"):
        second.ask("PUT", "/1.0/cluster", body | {"cluster_certificate": wrong})
    with pytest.raises(Refused, match="Not a certificate"):
        second.ask("PUT", "/1.0/cluster", body | {"cluster_certificate": "nonsense"})
    assert names(first) == ["n1"]
    right = first.ask("GET", "/1.0")["environment"]["certificate"]
    second.ask("PUT", "/1.0/cluster", body | {"cluster_certificate": right})
    assert names(second) == ["n1", "n2"]


def test_of_two_servers_with_one_token_one_gets_in() -> None:
    with running(members=3, gpus=0, joined=False) as made:
        first, *rest = made.members
        body = {"server_name": "n1", "enabled": True, "server_address": first.address}
        first.ask("PUT", "/1.0/cluster", body)
        token = first.token("new")
        body = {"server_name": "new", "enabled": True, "cluster_token": token}

        def join(member: Member) -> bool:
            try:
                member.ask("PUT", "/1.0/cluster", body | {"server_address": member.address})
            except Refused:
                return False
            return True

        with ThreadPoolExecutor() as threads:
            joined = list(threads.map(join, rest))
        assert sorted(joined) == [False, True]
        assert names(first) == ["n1", "new"]
        assert [member.ask("GET", "/1.0/cluster")["enabled"] for member in rest] == joined
        loser = rest[joined.index(False)]
        with pytest.raises(Refused, match="already has a member with name: new"):
            first.token("new")
        loser.join(first.token(loser.name))
        assert len(names(loser)) == 3


def test_a_server_whose_address_is_gone_starts_and_can_be_given_another(apart: Cluster) -> None:
    _, second = apart.members
    lxc(second, "config", "set", "core.https_address", second.address)
    second.stop()
    address = (f"{apart.net.address(second.name)}/24", "dev", "eth0")
    run(*apart.net.enter(second.name, "ip", "addr", "del", *address))
    second.start()
    lxc(second, "config", "set", "core.https_address", "127.0.0.1:9443")
    assert second.ask("GET", "/1.0")["environment"]["addresses"] == ["127.0.0.1:9443"]
    run(*apart.net.enter(second.name, "ip", "addr", "add", *address))
    lxc(second, "config", "set", "core.https_address", second.address)
