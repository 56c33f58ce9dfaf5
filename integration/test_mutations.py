"""The tests of Raft are tested: with a repair taken out, the test that stands for it must fail.

Random faults miss some repairs (a vote that is not durable, an acknowledgement without a term), so each has a
test of its own.
"""

from collections.abc import Mapping

import pytest

from integration.mutants import Job, Result, run_all
from integration.mutations import MUTATIONS, TESTS

SOUND = "nothing"
PASSED, FAILED = 0, 1  # pytest's exit statuses when tests ran

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def results() -> Mapping[str, Result]:
    jobs = [Job(one.name, one.changes, [TESTS + test for test in one.tests]) for one in MUTATIONS]
    every = dict.fromkeys(test for job in jobs for test in job.tests)
    return run_all([Job(SOUND, (), tuple(every)), *jobs])


def test_without_a_mutation_they_pass(results: Mapping[str, Result]) -> None:
    assert results[SOUND].status == PASSED, results[SOUND].output


@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_it_is_noticed_when_a_member(name: str, results: Mapping[str, Result]) -> None:
    assert results[name].status == FAILED, results[name].output
