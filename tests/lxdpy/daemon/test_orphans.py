import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from cluster.errors import Unavailable
from cluster.membership.heartbeat import Verdict
from lxdpy.daemon.orphans import ABSENT, SILENT_FOR, Orphans
from tests.lxdpy.resources.cluster.scene import OTHER, clustered


class Scene:
    """One operation of the other member, of which this member has heard; then that is cut off."""

    def __init__(self, status_code: int = 103) -> None:
        store = clustered()
        self.verdict = Verdict(False, 0.0)
        self.rows: list[dict[str, Any]] | None = None  # of the owner's list; None: it does not answer
        self.told: list[dict[str, Any]] = []
        self.daemon = SimpleNamespace(
            store=store,
            state=store.state,
            hub=SimpleNamespace(on_operation=lambda _: None, publish=self.publish),
            beat=SimpleNamespace(verdict=lambda _: self.verdict),
            forwarder=SimpleNamespace(ask=self.ask),
        )
        self.orphans = Orphans(cast(Any, self.daemon))
        self.heard(103)
        if status_code != 103:
            self.heard(status_code)
        self.orphans.linked(OTHER, False)

    def heard(self, status_code: int) -> None:
        view = {
            "id": "op1",
            "status_code": status_code,
            "status": "x",
            "err": "",
            "description": "Backing up",
        }
        event = json.dumps({"type": "operation", "metadata": view, "project": "lab"}).encode()
        self.orphans.heard(OTHER, "lab", event)

    def publish(self, type: str, view: dict[str, Any], **options: Any) -> None:
        assert (type, options) == ("operation", {"project": "lab", "location": "n2", "cast": False})
        self.told.append(view)

    async def ask(self, member: str, method: str, path: str, timeout: float) -> list[dict[str, Any]]:
        if self.rows is None:
            raise Unavailable("starting")
        return self.rows

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.orphans.step())


def test_a_silent_members_operations_are_given_up_after_a_while() -> None:
    scene = Scene()
    scene.verdict = Verdict(False, SILENT_FOR - 1)
    scene.look(3)
    assert scene.told == []
    scene.verdict = Verdict(False, SILENT_FOR + 1)
    scene.look(2)
    (view,) = scene.told
    assert (view["id"], view["status"], view["status_code"]) == ("op1", "Failure", 400)
    assert view["description"] == "Backing up"
    assert "Member n2 was lost" in view["err"]


def test_what_a_member_that_came_back_knows_nothing_of_has_failed() -> None:
    scene = Scene()
    scene.verdict = Verdict(True, 0.0)
    scene.look(2 * ABSENT)
    assert scene.told == [], "it is still starting"
    scene.rows = []
    scene.look(ABSENT - 1)
    assert scene.told == []
    scene.look(2)
    assert [view["status_code"] for view in scene.told] == [400]


def test_what_goes_on_is_left_alone_and_an_end_that_was_missed_is_told() -> None:
    scene = Scene()
    scene.verdict = Verdict(True, 0.0)
    scene.rows = [{"id": "op1", "status_code": 103, "project": "lab"}]
    scene.look(2 * ABSENT)
    assert scene.told == []
    scene.orphans.linked(OTHER, False)
    scene.rows = [{"id": "op1", "status_code": 200, "project": "lab"}]
    scene.look(2)
    assert scene.told == [{"id": "op1", "status_code": 200}]


def test_an_operation_that_has_ended_is_forgotten() -> None:
    scene = Scene(status_code=200)
    scene.verdict = Verdict(False, SILENT_FOR + 1)
    scene.look(2)
    assert scene.told == []
