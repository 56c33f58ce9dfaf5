import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.errors import Forbidden
from lxdpy.resources.recovery import handlers
from lxdpy.rest.auth import Identity
from tests.lxdpy.fakes import serving
from tests.lxdpy.resources.recovery.scene import lost


def test_the_answers_are_in_lxds_words(tmp_path: Path) -> None:
    async def main() -> list[Any]:
        server = await lost(tmp_path)
        async with serving(server.daemon, handlers.routes) as client:
            paths = ("validate", "import", "import")
            return [await client.ask("POST", f"/internal/recover/{path}", {}) for path in paths]

    looked, done, again = asyncio.run(main())
    assert looked["metadata"] == done["metadata"]
    assert looked["metadata"]["unknownVolumes"][1] == {
        "pool": "p1", "project": "own", "type": "container", "name": "web", "snapshotCount": 1,
    }  # fmt: skip
    assert again["metadata"] == {"unknownVolumes": [], "dependencyErrors": []}


@pytest.mark.parametrize("handler", [handlers.validate, handlers.recover])
def test_another_member_is_not_believed(handler: Any) -> None:
    call = SimpleNamespace(identity=Identity("cluster", "abc"))
    with pytest.raises(Forbidden):
        asyncio.run(cast(Any, handler)(call))
