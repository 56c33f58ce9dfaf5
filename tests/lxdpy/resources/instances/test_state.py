"""Changes of state, of one instance and of all."""

from pathlib import Path

from lxdpy.resources.instances.state import routes
from lxdpy.resources.operations.handlers import routes as operations
from tests.lxdpy.fakes import Local
from tests.lxdpy.resources.instances.scene import instance, ready_store, with_client


def test_of_all_each_that_could_not_is_named_also_where_no_member_has_an_address(tmp_path: Path) -> None:
    store = ready_store()
    for name, status in (("c1", "Running"), ("c2", "Running"), ("c3", "Stopped")):
        instance(store, name, status)  # type: ignore[arg-type]

    async def check(client: Local) -> None:
        body = {"state": {"action": "freeze", "timeout": 5}}
        begun = (await client.ask("PUT", "/1.0/instances", body))["metadata"]
        ended = (await client.ask("GET", f"/1.0/operations/{begun['id']}/wait"))["metadata"]
        assert (ended["status"], ended["err"].splitlines()) == ("Failure", [
            "The following instances failed to update state:",
            " - Instance: c1: The container isn't running",
            " - Instance: c2: The container isn't running",
        ])  # fmt: skip

    with_client(tmp_path, store, check, routes, operations)
