"""What `house.py` finds in this checkout, and that it finds it at all."""

import ast
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from lxdpy.config import everything
from tests import house

ROOT = Path(__file__).parent.parent
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in ("cluster", "lxdpy", "tests", "integration")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
RULES = (house.impurities, house.wrong_ways, house.too_many_catch_alls)

pytestmark = pytest.mark.xdist_group("house")  # once is enough


class Found(NamedTuple):
    """In all sources, file by file: their trees are millions of objects, so none is kept."""

    complaints: dict[str, list[str]]  # by rule
    tags: Counter[str]


@pytest.fixture(scope="module")
def found() -> Found:
    made = Found({rule.__name__: [] for rule in (*RULES, house.unfinished)}, Counter())
    for path, text in SOURCES.items():
        tree = ast.parse(text)
        made.complaints["unfinished"] += house.unfinished(path, tree, text)
        if path.startswith(("cluster/", "lxdpy/")):
            made.tags.update(house.tags(tree))
            for rule in RULES:
                made.complaints[rule.__name__] += rule(path, tree)
    return made


@pytest.mark.parametrize("rule", [*RULES, house.unfinished])
def test_the_code_keeps_the(rule: Callable[..., list[str]], found: Found) -> None:
    assert found.complaints[rule.__name__] == []


def test_files_are_short() -> None:
    assert [complaint for path, text in SOURCES.items() for complaint in house.too_long(path, text)] == []


def test_the_top_of_the_tree_is_closed() -> None:
    allowed = {"cluster", "lxdpy", "tests", "integration", "scripts", "pyproject.toml", "README.md",
               "CHANGELOG.md", "LICENSE"}  # fmt: skip
    made = {"build", "dist", "lxdpy.egg-info"}
    assert {path.name for path in ROOT.iterdir() if path.name[0] != "."} - made <= allowed


def test_every_command_has_a_tag_of_its_own(found: Found) -> None:
    assert found.tags, "no command found: does the checker still know what one looks like?"
    assert {tag for tag, times in found.tags.items() if times > 1} == set()


def test_every_config_key_is_explained_in_a_sentence() -> None:
    docs = [(table.name, key.name, key.doc) for table in everything().values() for key in table.keys]
    assert docs
    assert [entry for entry in docs if len(entry[2]) < 8 or not entry[2].endswith((".", "."))] == []


PURE = "lxdpy/resources/profiles/commands.py"


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (house.impurities, PURE, "import time"),
        (house.impurities, PURE, "from os import path"),
        (house.impurities, "cluster/state/machine.py", "def f():\n    import os.path"),
        (house.wrong_ways, "cluster/raft/store.py", "import lxdpy.config"),
        (house.wrong_ways, "lxdpy/host/run.py", "from cluster.state import txn"),
        (house.wrong_ways, "lxdpy/host/run.py", "from lxdpy.rest.app import App"),
        (house.wrong_ways, "lxdpy/config/key.py", "from lxdpy.host.run import run"),
        (house.wrong_ways, PURE, "from lxdpy.rest.route import Call"),
        (house.wrong_ways, "lxdpy/resources/images/handlers.py", "from lxdpy.host.run import run"),
        (house.wrong_ways, "lxdpy/rest/app.py", "from lxdpy.daemon.main import cli"),
        (house.wrong_ways, "lxdpy/client/client.py", "from lxdpy.resources.images.commands import X"),
        (house.too_many_catch_alls, "lxdpy/rest/route.py", "try:\n    f()\nexcept Exception:\n    pass"),
        (
            house.too_many_catch_alls,
            "lxdpy/rest/route.py",
            "try:\n    f()\nexcept (OSError, Exception):\n  pass",
        ),
        (house.too_many_catch_alls, "lxdpy/rest/route.py", "try:\n    f()\nexcept:\n    pass"),
        (house.too_many_catch_alls, "lxdpy/host/undo.py", "try: f()\nexcept Exception: g()\n" * 2),
    ],
)
def test_a_breach_is_found(rule: Callable[[str, ast.AST], list[str]], path: str, source: str) -> None:
    assert len(rule(path, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (house.impurities, "lxdpy/resources/profiles/handlers.py", "import time"),
        (house.impurities, PURE, "import msgspec"),
        (house.wrong_ways, "lxdpy/rest/app.py", "from lxdpy.daemon.context import Daemon"),
        (house.wrong_ways, "lxdpy/client/client.py", "from lxdpy.resources.images.model import Image"),
        (house.wrong_ways, PURE, "if TYPE_CHECKING:\n    from lxdpy.rest.route import Call"),
        (house.too_many_catch_alls, "lxdpy/host/undo.py", "try: f()\nexcept Exception: g()"),
        (house.too_many_catch_alls, "lxdpy/rest/route.py", "try: f()\nexcept ExceptionGroup: g()"),
        (house.too_many_catch_alls, "lxdpy/rest/route.py", "try: f()\nexcept Exception:\n  g()\n  raise"),
    ],
)
def test_what_is_allowed_is_let_be(rule: Callable[[str, ast.AST], list[str]], path: str, source: str) -> None:
    assert rule(path, ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    ["# {}".format("TO" + "DO"), "raise {}Error".format("NotImplemented"), "pytest.{}()".format("skip")],
)
def test_work_left_for_later_is_found(source: str) -> None:
    assert len(house.unfinished("x.py", ast.parse(source), source)) == 1


def test_a_long_file_is_found() -> None:
    assert house.too_long("x.py", "\n" * 401)
    assert not house.too_long("x.py", "\n" * 400)


def test_tags_are_read_from_the_class() -> None:
    assert house.tags(ast.parse("class A(Command, frozen=True, tag='a.b'): pass")) == ["a.b"]
