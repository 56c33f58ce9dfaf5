"""Mutants: our own modules with a piece of source changed while they are imported. No file is touched.

Each mutant is a process of its own, forked from one that has all libraries loaded but nothing of ours: so
dozens of them take seconds.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, ModuleType
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent
LIBRARIES = ["pytest", "pytest_timeout", "asyncio", "msgspec", "msgpack", "OpenSSL", "cryptography.x509"]
AT_ONCE = 2
HANGS_AFTER = 20  # seconds for a test; a mutant may loop for ever


class Changed(NamedTuple):
    file: str  # from the top
    old: str
    new: str


class Job(NamedTuple):
    name: str
    changes: Sequence[Changed]
    tests: Sequence[str]  # node ids of pytest


class Result(NamedTuple):
    name: str
    status: int  # pytest's
    output: str


def run_all(jobs: Iterable[Job]) -> Mapping[str, Result]:
    """Run every job's tests on its mutant. Raises ValueError for a change that does not fit the source."""
    checked = list(jobs)
    for job in checked:
        for change in job.changes:
            mutated(change, (TOP / change.file).read_text())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with context.Pool(AT_ONCE, maxtasksperchild=1) as pool:
        return {result.name: result for result in pool.imap_unordered(run, checked, chunksize=1)}


def mutated(change: Changed, source: str) -> str:
    if source.count(change.old) != 1:
        raise ValueError(f"{change.file} has changed: find this again, once:\n{change.old}")
    return source.replace(change.old, change.new)


def run(job: Job) -> Result:
    """In a process of its own."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(TOP)
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, Mutator(job.changes))
    words = ["-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
    output = StringIO()
    # A folder of its own: those that run beside it tidy up the one that all share.
    with TemporaryDirectory() as folder, redirect_stdout(output), redirect_stderr(output):
        words += [f"--timeout={HANGS_AFTER}", f"--basetemp={folder}/pytest"]
        status = pytest.main([*words, *job.tests])
    return Result(job.name, int(status), output.getvalue())


class Mutator(MetaPathFinder):
    def __init__(self, changes: Iterable[Changed]) -> None:
        self._changes: dict[str, list[Changed]] = {}
        for change in changes:
            self._changes.setdefault(str(TOP / change.file), []).append(change)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin not in self._changes:
            return None
        spec.loader = MutatedLoader(name, spec.origin, self._changes[spec.origin])
        return spec


class MutatedLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, changes: Iterable[Changed]) -> None:
        super().__init__(name, path)
        self._changes = tuple(changes)

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        for change in self._changes:
            source = mutated(change, source)
        return compile(source, self.path, "exec", dont_inherit=True)
