"""How long the first run to the target may go on, and what a run that was paused beyond the milestone says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batchscope.search.completion import steps_allowed
from batchscope.search.observations import observe
from batchscope.search.question import Question, Within
from batchscope.store.records import RunStatus, Target
from batchscope.store.runs import StoredRun

from .searches import TARGET, run, search, step_time

MILESTONE = Target(metric="val_loss", value=0.6, mode="min")


def paused(found: StoredRun, steps: int) -> StoredRun:
    """The run as it was at a step."""
    assert found.result is not None
    rows = tuple(row for row in found.rows if row["step"] <= steps)
    return replace(found, rows=rows, result=replace(found.result, status=RunStatus.PAUSED, steps=rows[-1]["step"]))


WAITING = paused(run(64, 0.2), 100)


def test_twice_the_expected_steps_are_allowed_and_more_than_were_made() -> None:
    state = search([WAITING], milestone=MILESTONE)
    expected = float(np.exp(np.median(state.posterior.log_steps(64, 0.2))))
    assert steps_allowed(state, 64, 0.2) == pytest.approx(2 * expected, abs=1)
    far = search([paused(run(64, 0.2, slower=1.0), 190)], milestone=MILESTONE)
    allowed = steps_allowed(far, 64, 0.2)
    assert allowed is not None
    assert allowed >= 1.5 * far.runs[0].rows[-1]["step"]


def test_a_run_that_others_bound_or_whose_length_is_given_goes_on() -> None:
    assert steps_allowed(search([run(64, 0.2)]), 64, 0.2) is None
    within = Question(within=Within(amount=5, unit="epochs"))
    assert steps_allowed(search([WAITING], question=within, milestone=MILESTONE), 64, 0.2) is None


def test_a_run_paused_well_beyond_the_milestone_is_censored_on_its_way_and_still_waits() -> None:
    (seen,) = observe([WAITING], TARGET, step_time, MILESTONE)
    assert (seen.kind, seen.to) == ("censored", "target")
    assert seen.steps == WAITING.rows[-1]["step"]
    assert seen.milestone_steps is not None
    assert 1.5 * seen.milestone_steps < seen.steps
    state = search([WAITING], milestone=MILESTONE)
    assert state.paused == {(64, 0.2)}
    assert not state.reached
