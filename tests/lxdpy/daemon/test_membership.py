"""What a member keeps of the state in its identity, for its next start."""

import msgspec

from cluster.membership.identity import Identity
from cluster.membership.model import MEMBERS
from lxdpy.daemon.membership import followed
from lxdpy.resources.server.commands import ConfigureServer
from tests.lxdpy.fakes import MEMBER_ID
from tests.lxdpy.resources.cluster.scene import clustered


def test_a_joining_member_keeps_where_it_listens_until_it_has_told_it() -> None:
    """Else it would tell nothing after a start in between."""
    store = clustered()
    row = msgspec.structs.replace(store.state.get(MEMBERS, MEMBER_ID), status="joining")
    store.put(MEMBERS, MEMBER_ID, row)
    joined = Identity("c1", MEMBER_ID, listen=":8443", cluster_listen="10.0.0.1:8443")
    seen = followed(joined, store.state)
    assert (seen.listen, seen.cluster_listen) == (":8443", "10.0.0.1:8443")
    assert seen.peers.keys() == store.state.rows(MEMBERS).keys()
    store.run(ConfigureServer({}, MEMBER_ID, {"core.https_address": ":9443"}))
    store.put(MEMBERS, MEMBER_ID, msgspec.structs.replace(row, status="ready"))
    assert followed(seen, store.state).listen == ":9443"
