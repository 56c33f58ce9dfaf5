from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.lxdpy.cli.server import Cli


@pytest.fixture
def lxdpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    # Not tmp_path: with a long test name the path of the socket would be longer than the kernel takes.
    with TemporaryDirectory() as folder:
        yield Cli(Path(folder, "unix.socket"), monkeypatch)
