import pytest

from lxdpy.dev.bench.__main__ import GROUPS, measures, reasons, wanted

STEPS = [step for _, steps in GROUPS for step in steps]


def test_every_measure_has_a_name_of_its_own() -> None:
    names = [measure.name for measure in measures()]
    assert len(names) == len(set(names))


def test_all_steps_are_run_unless_some_are_chosen() -> None:
    assert all(wanted(step, set()) for step in STEPS)
    chosen = [step for step in STEPS if wanted(step, {"stop", "failover"})]
    assert [{"stop", "failover"} & {measure.name for measure in step.measures} for step in chosen] == [
        {"stop"}, {"failover"},
    ]  # fmt: skip


def test_a_failure_does_not_hide_the_one_before() -> None:
    with pytest.raises(OSError, match="not empty") as failure:  # noqa: PT012  # the inner one is the point
        try:
            raise RuntimeError("no leader")
        finally:
            raise OSError("not empty")
    assert list(reasons(failure.value)) == ["not empty", "no leader"]
