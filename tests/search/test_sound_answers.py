"""No answer rests on runs that diverged, or that the clock cut at their first steps."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from batchscope.search.first_looks import FirstLooks
from batchscope.search.observations import FEWEST_STEPS
from batchscope.search.plan import build_plan
from batchscope.search.question import Question, Within
from batchscope.store.records import PlanStatus, RunStatus
from batchscope.store.runs import StoredRun

from .searches import TARGET, TRIED, run, search

JUDGED = TARGET.judged_by
SOUND = [run(*pair) for pair in TRIED]
LOST = [run(*pair, status=RunStatus.DIVERGED) for pair in TRIED]
CUT = [run(*pair, steps=1.0, status=RunStatus.OUT_OF_TIME) for pair in TRIED]


@pytest.mark.parametrize("runs", [LOST, CUT, [*LOST[:2], *CUT[2:]]], ids=["diverged", "cut", "both"])
def test_runs_that_passed_the_target_and_are_not_sound_are_no_answer(runs: list[StoredRun]) -> None:
    plan = build_plan(search(runs))
    assert plan.status is PlanStatus.INSUFFICIENT_DATA
    assert plan.status.exit_status == 3
    assert plan.recipe is None
    assert plan.verified is None
    assert str(TARGET) in plan.message


def test_one_sound_run_is_enough() -> None:
    plan = build_plan(search([SOUND[0], *LOST[1:]]))
    assert plan.status is PlanStatus.OK
    assert build_plan(search(SOUND)).status is PlanStatus.OK


def test_a_run_that_diverged_verifies_nothing() -> None:
    best = build_plan(search(SOUND)).recipe
    assert best is not None
    pair = best.batch_size, best.lr
    assert pair[1] is not None
    others = [each for each in SOUND if (each.config.batch_size, each.config.lr) != pair]
    lost = run(pair[0], pair[1], status=RunStatus.DIVERGED)
    plan = build_plan(search([*others, lost]))
    assert plan.recipe is not None
    assert (plan.recipe.batch_size, plan.recipe.lr) != pair or plan.verified is None


@pytest.mark.parametrize(("steps", "chosen"), [(1, False), (FEWEST_STEPS - 1, False), (FEWEST_STEPS, True), (90, True)])
def test_a_target_is_chosen_only_from_runs_that_came_beyond_their_first_steps(steps: int, chosen: bool) -> None:
    cut = run(64, 0.05, most=steps, status=RunStatus.OUT_OF_TIME)
    state: dict[str, Any] = {"now": search([cut], target=None, question=Question(metric=JUDGED))}

    def update(**changes: Any) -> None:
        state["now"] = replace(state["now"], **changes)

    runner = SimpleNamespace(store=SimpleNamespace(runs=tuple))
    looks = FirstLooks(
        question=state["now"].question,
        prepared=SimpleNamespace(preflight=SimpleNamespace(independent=True)),  # type: ignore[arg-type]
        runs=SimpleNamespace(runner=runner, too_late_for=lambda config: False),  # type: ignore[arg-type]
        state=lambda: state["now"],
        update=update,
        config=lambda batch_size, lr, purpose, **more: cut.config,
        run=lambda config, why, **how: cut,
        shrink=lambda error: None,
        stall_patience=0.5,
    )
    looks.pilot()
    assert (state["now"].target is not None) == chosen
    if not chosen:
        plan = build_plan(state["now"])
        assert plan.status is PlanStatus.INSUFFICIENT_DATA
        assert "ran out of time" in plan.message
        assert "longer --budget" in plan.message


@pytest.mark.parametrize("last", [math.nan, math.inf, None])
def test_a_whole_run_without_a_number_at_its_end_is_none(last: float | None) -> None:
    whole = [run(b, lr, most=200, status=RunStatus.OUT_OF_STEPS, steps=900.0) for b, lr in TRIED]
    question = Question(within=Within(amount=200, unit="steps"), metric=JUDGED)
    plan = build_plan(search(whole, question=question))
    assert plan.recipe is not None
    broken = []
    for each in whole:
        assert each.result is not None
        metrics = {} if last is None else {TARGET.metric: last}
        broken.append(replace(each, result=replace(each.result, last=metrics)))
    assert not search(broken, question=question).lengths.whole
    assert build_plan(search(broken, question=question)).status.exit_status == 3
