import pytest

from cluster.errors import AlreadyExists, Conflict
from cluster.state.command import Command
from lxdpy.resources.networks.commands import CreateNetwork, DefineNetwork, RenameNetwork
from lxdpy.resources.networks.model import NETWORKS, Network, NetworkMember
from lxdpy.resources.projects.commands import CreateProject
from lxdpy.resources.projects.model import Project
from lxdpy.resources.server.commands import CreateDefaults
from tests.lxdpy.fakes import MEMBER_ID, LocalStore

PART = {MEMBER_ID: NetworkMember()}


@pytest.fixture
def store() -> LocalStore:
    """With a network in a project, made through another member just now."""
    made = LocalStore()
    made.run(CreateDefaults())
    made.run(CreateProject(Project("p", config={"features.networks": "true"})))
    made.run(CreateNetwork(Network("p", "br0", members=PART)))
    made.run(CreateNetwork(Network("default", "br1", members=PART)))
    return made


@pytest.mark.parametrize(
    "command",
    [
        CreateNetwork(Network("default", "br0", members=PART)),
        DefineNetwork("default", "br0", "bridge", MEMBER_ID, {}),
        RenameNetwork("default/br1", "br0"),
    ],
)
def test_no_two_projects_have_a_network_of_the_same_name(store: LocalStore, command: Command) -> None:
    """Both would be the same bridge. Who asks at two members at once is not told by either's look."""
    before = store.state.tables
    with pytest.raises(Conflict, match='Network interface "br0" already exists'):
        store.run(command)
    assert store.state.tables == before


def test_a_network_that_some_could_not_make_is_created_again(store: LocalStore) -> None:
    row = store.state.get(NETWORKS, "p/br0")
    store.put(NETWORKS, row.key, Network("p", "br0", status="Created", members={MEMBER_ID: NetworkMember(
        {}, "Errored", "no", "invalid")}))  # fmt: skip
    store.run(CreateNetwork(Network("p", "br0")))
    assert store.state.get(NETWORKS, "p/br0").members[MEMBER_ID].status == "Pending"
    with pytest.raises(AlreadyExists):
        store.run(RenameNetwork("p/br0", "br0"))
