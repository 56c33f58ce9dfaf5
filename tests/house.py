"""The rules of the house, as functions from source text to complaints. `test_house.py` applies them."""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

LONGEST = 400  # lines of a file
IMPURE = {
    "asyncio", "os", "pathlib", "time", "datetime", "random", "uuid", "secrets", "socket", "threading",
    "subprocess", "aiohttp", "pysyncobj",
}  # fmt: skip
PURE_FOLDERS = ("lxdpy/config/", "cluster/state/", "cluster/scheduler/")
PURE_FILES = ("model.py", "commands.py", "events.py", "claims.py")  # of a noun or of membership

# Who may import whom: the longest prefix of the importing file that stands here decides. A target is a
# package or module, and all below it. What is not ours is not told here.
STATE = ("cluster.errors", "cluster.state", "cluster.membership.model")
DIRECTION: dict[str, tuple[str, ...]] = {
    "cluster/": ("cluster",),
    "cluster/errors.py": (),
    "cluster/state/": ("cluster.errors", "cluster.state"),
    "cluster/scheduler/": ("cluster.errors", "cluster.scheduler"),
    "lxdpy/config/": ("cluster.errors", "cluster.scheduler.match", "lxdpy.config"),
    "lxdpy/host/": ("cluster.errors", "lxdpy.config", "lxdpy.host"),
    "lxdpy/host/gpu/": ("cluster.errors", "cluster.scheduler", "lxdpy.config", "lxdpy.host"),  # words of GPUs
    "lxdpy/host/devices/gpu": ("cluster.errors", "cluster.scheduler", "lxdpy.config", "lxdpy.host"),
    "lxdpy/rest/": ("cluster", "lxdpy.config", "lxdpy.rest", "lxdpy.daemon.context",
                    "lxdpy.resources.certificates.model"),  # whose fingerprint this is
    "lxdpy/resources/": ("cluster", "lxdpy.config", "lxdpy.host", "lxdpy.rest", "lxdpy.resources",
                         "lxdpy.daemon.context"),
    "lxdpy/resources/images/remote": ("cluster", "lxdpy.client", "lxdpy.host", "lxdpy.resources",
                                      "lxdpy.daemon.context"),  # itself a client of other servers
    "lxdpy/client/": ("cluster.errors", "lxdpy.client", "lxdpy.rest.errors", "lxdpy.resources.*.model"),
    "lxdpy/cli/": ("cluster", "lxdpy.cli", "lxdpy.client", "lxdpy.config", "lxdpy.host", "lxdpy.rest.errors",
                   "lxdpy.resources.*.model", "lxdpy.resources.tables"),
    "lxdpy/dev/": ("cluster.errors", "lxdpy.dev", "lxdpy.client", "lxdpy.host.paths"),
    "lxdpy/dev/bench/raft": ("cluster", "lxdpy.dev"),  # what is measured there is a part, not the daemon
    "lxdpy/dev/bench/tls": ("cluster.tls", "lxdpy.dev"),
    "lxdpy/dev/bench/simulation.py": ("cluster", "lxdpy.dev", "lxdpy.resources"),  # a member without hands
    "lxdpy/daemon/": ("cluster", "lxdpy"),
    "lxdpy/": ("lxdpy",),
}  # fmt: skip
PURE_OF_NOUNS = (*STATE, "cluster.scheduler", "cluster.membership", "lxdpy.config", "lxdpy.resources")
# A handler checks, proposes, replies. It may read drivers' tables and reports; hands are for actions.
HANDLERS_MAY_NOT = tuple(
    f"lxdpy.host.{hand}" for hand in ("run", "undo", "lxc", "mounts", "cgroups", "idmap", "devices.driver")
)
CATCH_ALL_ALLOWED = {
    "cluster/state/machine.py": 1,
    "lxdpy/host/undo.py": 1,
    "lxdpy/rest/app.py": 1,  # the top of a request
    "lxdpy/resources/operations/registry.py": 1,  # the top of an operation
}
DAEMON_TASKS = "lxdpy/daemon/"  # where the other tasks have their tops


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each module (or name in it) that is imported; not those for types only."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name | ast.Attribute)
        and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_pure(path: str) -> bool:
    if path.startswith(PURE_FOLDERS):
        return True
    at_noun = path.startswith(("lxdpy/resources/", "cluster/membership/"))
    return at_noun and PurePosixPath(path).name in PURE_FILES


def impurities(path: str, tree: ast.AST) -> list[str]:
    if not is_pure(path):
        return []
    return [
        f"{path}:{line}: pure, but imports {name}"
        for line, name in imports(tree)
        if name.split(".")[0] in IMPURE
    ]


def wrong_ways(path: str, tree: ast.AST) -> list[str]:
    rule = max((prefix for prefix in DIRECTION if path.startswith(prefix)), key=len, default=None)
    if rule is None:
        return []
    allowed = DIRECTION[rule]
    if is_pure(path) and path.startswith("lxdpy/resources/"):
        allowed = PURE_OF_NOUNS
    banned = HANDLERS_MAY_NOT if path.endswith("/handlers.py") else ()
    return [
        f"{path}:{line}: may not import {name}"
        for line, name in imports(tree)
        if name.split(".")[0] in ("cluster", "lxdpy")
        and name != "lxdpy.VERSION"
        and (not _in(name, allowed) or _in(name, banned))
    ]


def _in(name: str, packages: tuple[str, ...]) -> bool:
    parts = name.split(".")
    return any(
        len(parts) >= len(wanted) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=False))
        for wanted in (package.split(".") for package in packages)
    )


def catch_alls(tree: ast.AST) -> list[int]:
    """Lines of `except Exception`, `except BaseException` and bare `except` that do not raise it again."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and ast.unparse(node.body[-1]) != "raise"
        and (node.type is None or {"Exception", "BaseException"} & set(_names(node.type)))
    ]


def _names(caught: ast.expr) -> list[str]:
    return [ast.unparse(one) for one in (caught.elts if isinstance(caught, ast.Tuple) else [caught])]


def too_many_catch_alls(path: str, tree: ast.AST) -> list[str]:
    found = catch_alls(tree)
    allowed = 1 if path.startswith(DAEMON_TASKS) else CATCH_ALL_ALLOWED.get(path, 0)
    return [f"{path}:{line}: catches everything" for line in found[allowed:]]


def too_long(path: str, text: str) -> list[str]:
    lines = text.count("\n")
    return [f"{path}: {lines} lines, more than {LONGEST}"] if lines > LONGEST else []


def unfinished(path: str, tree: ast.AST, text: str) -> list[str]:
    """Marks of work left for later, and tests that do not run."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")
    lines = [f"{path}:{text.count(chr(10), 0, mark.start()) + 1}: {mark[0]}" for mark in marks.finditer(text)]
    skips = {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.importorskip", "unittest.skip"}
    return lines + [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node in (ast.walk(tree) if "skip" in text else ())
        if isinstance(node, ast.Attribute) and ast.unparse(node) in skips
    ]


def tags(tree: ast.AST) -> list[str]:
    """The tags of the commands a file defines."""
    return [
        keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("Command") for base in node.bases)
        for keyword in node.keywords
        if keyword.arg == "tag"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    ]
