"""What a search makes of the best constant prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchscope.search.constant import beyond_constant, constant_in_words, nothing_learnt, plateau_rule
from batchscope.search.plan import build_plan
from batchscope.search.question import Question, Within
from batchscope.search.state import SearchState
from batchscope.store.records import Metric, PlanStatus, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run
from batchscope.training.stopping import History, PlateauRule

from .searches import search

LOSS = Metric.parse("val_loss")


def run(*values: float, lr: float = 0.1, metric: str = "val_loss", **more: Any) -> StoredRun:
    rows = [evaluation(10 * i, {metric: value}, batch_size=64) for i, value in enumerate(values)]
    return stored_run(64, lr, rows, **more)


def after(*runs: StoredRun, constant: float | None, target: float | None = None, **asked: Any) -> SearchState:
    """A search without a target that chose one, the last argument, from its first runs."""
    question = Question(**({"metric": LOSS} | asked))
    chosen = None if target is None else Target(metric="val_loss", value=target, mode="min")
    known = {} if constant is None else {"val_loss": constant, "val_accuracy": 0.7}
    return replace(search(), runs=runs, question=question, target=chosen, constant=known)


def test_a_chosen_target_counts_from_the_constant_prediction() -> None:
    state = after(run(9000.0, 60.0, 20.0, 10.0, 10.0, 10.0), constant=50.0, target=460.0)
    changes = beyond_constant(state)
    assert changes["target"].value == pytest.approx(12.0)
    assert 12.0 < changes["milestone"].value < 50.0
    assert changes["confirmation"] is not None


def test_a_target_that_lies_beyond_is_left() -> None:
    learnt = run(2.5, 1.0, 0.5, 0.2, 0.2, 0.2)
    assert beyond_constant(after(learnt, constant=None, target=0.3)) == {}
    assert beyond_constant(after(learnt, constant=3.0, target=0.315)) == {}, "fresh weights are better"
    goal = Target.parse("val_loss<=0.3")
    asked = replace(after(learnt, constant=1.0), question=Question(target=goal), target=goal)
    assert beyond_constant(asked) == {}


def test_there_is_no_target_where_no_run_got_beyond_it() -> None:
    state = after(run(0.8, 0.7, 0.695, 0.72), run(0.8, 0.75, 0.7, lr=0.02), constant=0.693, target=0.7)
    changes = beyond_constant(state)
    assert changes["target"] is None
    plan = build_plan(replace(state, **changes))
    assert (plan.status, plan.recipe, plan.target) == (PlanStatus.INSUFFICIENT_DATA, None, None)
    assert plan.message.startswith("nothing was learnt: the best val_loss of 2 runs is 0.695, and the best constant")
    assert "0.693" in plan.message
    assert "--budget" not in plan.message


def test_a_longer_budget_is_named_where_time_ended_a_run() -> None:
    state = after(run(0.8, 0.7, status=RunStatus.OUT_OF_TIME), constant=0.693)
    assert nothing_learnt(state).endswith("about the labels. Give a longer --budget")
    within = after(run(0.8, 0.7), constant=0.693, within=Within(amount=20, unit="steps"))
    assert nothing_learnt(within).endswith("about the labels. Give a longer --within")


def test_runs_that_all_diverged_are_said_to_have_diverged() -> None:
    runs = [run(0.8, 0.75, lr=lr, status=RunStatus.DIVERGED) for lr in (0.1, 0.02)]
    state = after(*runs, constant=0.693, target=0.76)
    assert not nothing_learnt(state)
    plan = build_plan(replace(state, **beyond_constant(state)))
    assert plan.status is PlanStatus.INSUFFICIENT_DATA
    assert "both runs diverged after" in plan.message
    assert "is to blame. Train one model at the lowest of them" in plan.message
    alone = replace(state, runs=state.runs[:1], target=None)
    assert "Train one model at it and look" in build_plan(alone).message


@pytest.mark.parametrize(("values", "mode"), [((0.5, 0.7), "max"), ((0.5, 0.6), "max"), ((-0.1, -0.2), "min")])
def test_nothing_is_learnt_at_the_value_itself_or_before_it(values: tuple[float, ...], mode: Any) -> None:
    metric = Metric(name="val_accuracy" if mode == "max" else "val_loss", mode=mode)
    state = replace(after(run(*values, metric=metric.name), constant=-0.3), question=Question(metric=metric))
    assert nothing_learnt(state)
    better = run(*values, 0.9 if mode == "max" else -0.9, metric=metric.name)
    assert not nothing_learnt(replace(state, runs=(better,)))


def test_a_target_of_the_users_that_it_reaches_is_answered_and_that_is_said() -> None:
    asked = Target.parse("val_accuracy>=0.6")
    state = replace(after(run(0.5, 0.65, metric="val_accuracy"), constant=0.6), question=Question(target=asked))
    assert not nothing_learnt(state)
    said = constant_in_words(state, 0.6)
    assert said.endswith("has val_accuracy 0.7 at best, and reaches the target too: ask for a better value")
    assert not constant_in_words(state, 0.9)


def test_a_small_gain_over_it_is_said() -> None:
    state = after(run(0.8, 0.7, 0.69), constant=0.693)
    assert "the answer is better by only 0.003" in constant_in_words(state, 0.69)
    assert not constant_in_words(state, 0.6)
    shifted = after(run(1000.71, 1000.2), constant=1000.693)
    assert not constant_in_words(shifted, 1000.2), "a loss with a large constant"
    assert not constant_in_words(after(run(0.8, 0.7), constant=None), 0.69)


def history(*values: float) -> History:
    seen = History(Metric.parse("val_loss").endless)
    for i, value in enumerate(values):
        seen.add(20 * i, None, {"val_loss": value})
    return seen


def test_a_run_that_gains_beyond_the_constant_prediction_has_not_levelled_off() -> None:
    still_learning = history(9000.0, 400.0, 60.0, 45.0, 40.0, 35.0)
    assert PlateauRule()(still_learning) is RunStatus.LEVELLED_OFF
    rule = plateau_rule(after(constant=50.0), 0)
    assert rule(still_learning) is None
    assert rule(history(9000.0, 400.0, 60.0, 35.0, 35.0, 35.0)) is RunStatus.LEVELLED_OFF
    assert rule(history(9000.0, 9001.0, 9002.0, 9003.0)) is RunStatus.LEVELLED_OFF
    assert isinstance(plateau_rule(after(constant=None), 70), PlateauRule)
