import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid
from lxdpy.host import modules


def test_what_is_loaded_is_not_loaded_again(tmp_path: Path) -> None:
    (tmp_path / "br_netfilter").mkdir()
    asyncio.run(modules.ensure(("br-netfilter", "br_netfilter"), tmp_path))


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"linux\.kernel_modules: no-such-module"):
        asyncio.run(modules.ensure(("no-such-module",), tmp_path))
