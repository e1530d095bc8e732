"""A given length: runs have it whatever their evaluations say, and the recipe is what is expected to end best."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from batchscope.report.summary import summary
from batchscope.search.ends import first_batch_size
from batchscope.search.plan import build_plan
from batchscope.search.question import CurrentRecipe, Question, Within
from batchscope.search.state import SearchState
from batchscope.store.ranges import Range
from batchscope.store.records import Metric, PlanStatus, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run
from batchscope.training.stopping import History, NoGainRule

from .folders import DENSE, Cli, answer, curves_of, without_clock
from .searches import EXAMPLES, search, step_time

EPOCHS = 4
BEST_SIZE, BEST_LR = 16, 0.08


def made(batch_size: int, lr: float, **changes: Any) -> StoredRun:
    """A run of 4 epochs whose loss falls to where a bowl around the best pair has it, with a dip in the middle."""
    most = changes.pop("most", EPOCHS * EXAMPLES // batch_size)
    off = math.log2(lr / (BEST_LR * batch_size / BEST_SIZE)) ** 2 + max(0.0, math.log2(batch_size / BEST_SIZE)) ** 2
    steps = sorted({round(most * 1.05**-k) for k in range(60)} | {0, most})
    values = [0.3 * (1 + 0.05 * off) * (most / max(step, 0.5)) ** 0.3 for step in steps]
    middle = len(values) - 20
    values[middle] = changes.pop("dip", values[middle])
    rows = [
        evaluation(s, {"val_loss": v}, batch_size=batch_size, train_loss=v, device_seconds=s * step_time(batch_size))
        for s, v in zip(steps, values, strict=True)
    ]
    changes = {"status": RunStatus.OUT_OF_STEPS, "max_steps": most} | changes
    return stored_run(batch_size, lr, rows, **changes)


def levelled(run: StoredRun, start: float, end: float, wobble: float = 0.0) -> StoredRun:
    """The same run with a value of fresh weights, a straight way from there, and a level that its end wobbles about."""
    last = len(run.rows) - 1
    values = [start + (end - start) * min(1.0, 2.0 * i / last) + wobble * (-1) ** i * (i > 0) for i in range(last + 1)]
    rows = tuple({**row, "metrics": {"val_loss": v}} for row, v in zip(run.rows, values, strict=True))
    return replace(run, rows=rows)


def asked(runs: list[StoredRun], unit: Any = "epochs", amount: float = EPOCHS, **changes: Any) -> SearchState:
    """The state of a search for 4 epochs, after its latest run."""
    of_question: dict[str, Any] = {k: changes.pop(k) for k in list(changes) if k in Question.__dataclass_fields__}
    of_question["metric"] = Metric(name="val_loss", mode="min")
    state = search(runs, question=Question(within=Within(amount=amount, unit=unit), **of_question), **changes)
    return replace(state, target=state.lengths.target if runs else None)


PAIRS = ((64, 0.32), (16, 0.08), (16, 0.04), (16, 0.16))


def test_the_recipe_is_what_ends_best_and_its_end_is_told_with_an_interval() -> None:
    plan = build_plan(asked([made(*pair) for pair in PAIRS]))
    assert plan.recipe is not None
    assert (plan.recipe.batch_size, plan.recipe.lr) == (BEST_SIZE, BEST_LR)
    assert plan.recipe.steps == EPOCHS * EXAMPLES // BEST_SIZE
    assert plan.recipe.early_stop.patience == EPOCHS / 2
    end = plan.expected_end
    assert end is not None
    assert end.low is not None
    assert end.high is not None
    assert end.low < 0.3 < end.high
    assert end.value == pytest.approx(0.3, rel=0.1)
    assert plan.message.startswith("Expected to end best, at val_loss 0.")
    assert plan.message.endswith(" after 4 epochs.")
    assert plan.predicted is not None
    assert plan.predicted.steps_to_target.low == plan.predicted.steps_to_target.high == plan.recipe.steps
    assert (plan.probability_within_5_percent, plan.alternatives, plan.curves) == (None, (), None)
    assert plan.search.run_equivalents == pytest.approx(
        plan.search.device_seconds / (plan.recipe.steps * step_time(BEST_SIZE)), rel=0.05
    )


def test_a_lucky_evaluation_in_the_middle_is_neither_chosen_nor_told() -> None:
    lucky = made(64, 0.32, dip=0.1)
    plan = build_plan(asked([lucky, made(16, 0.08)]))
    assert plan.recipe is not None
    assert plan.recipe.batch_size == 16
    alone = build_plan(asked([lucky]))
    assert lucky.result is not None
    assert alone.verified is not None
    assert alone.verified.metric == lucky.result.last["val_loss"] > 0.2
    assert alone.verified.steps == lucky.result.steps
    assert alone.target is not None
    assert alone.target.value == pytest.approx(alone.verified.metric, rel=0.02)


def test_of_recipes_that_end_alike_the_quickest_is_answered() -> None:
    same = [made(b, BEST_LR * b / BEST_SIZE) for b in (16, 64)]
    rows = (
        tuple(replace_value(row, 0.3) for row in same[0].rows),
        tuple(replace_value(row, 0.3) for row in same[1].rows),
    )
    state = asked([replace(run, rows=own) for run, own in zip(same, rows, strict=True)])
    assert state.lengths.seconds(64) < state.lengths.seconds(16)
    slow, quick = state.lengths.expected([(16, BEST_LR), (64, 4 * BEST_LR)]).mean(axis=0)
    alike = quick - slow <= state.lengths.share(0.005)
    assert state.decision.batch_size == (64 if alike else 16)


def replace_value(row: Any, end: float) -> Any:
    """The same evaluation, never below a value."""
    return {**row, "metrics": {"val_loss": max(end, row["metrics"]["val_loss"])}}


def test_runs_are_made_until_none_is_worth_it_and_none_twice() -> None:
    runs: list[StoredRun] = []
    state = asked(runs)
    while (following := state.lengths.next) is not None:
        assert (following.batch_size, following.lr) not in {(r.config.batch_size, r.config.lr) for r in runs}
        runs.append(made(following.batch_size, following.lr))
        state = asked(runs)
    assert 2 <= len(runs) <= 12
    recipe = state.decision.batch_size
    spent = sum(run.result.steps * step_time(run.config.batch_size) for run in runs if run.result)
    assert spent <= 5.1 * EPOCHS * EXAMPLES / recipe * step_time(recipe)
    ended = min(run.result.last["val_loss"] for run in runs if run.result)
    assert ended <= 0.3 * 1.05


def test_the_first_batch_size_grows_with_the_examples_of_the_training() -> None:
    sizes = tuple(2**k for k in range(14))
    assert [first_batch_size(sizes, lambda b, n=n: n) for n in (4_000, 64_000, 1_000_000)] == [16, 64, 256]
    assert first_batch_size(sizes, lambda b: 5000.0 * b) in (256, 512)


def test_the_second_run_is_at_a_lower_learning_rate() -> None:
    following = asked([made(16, 0.32)]).lengths.next
    assert following is not None
    assert (following.batch_size, following.lr) == (16, 0.08)


def test_runs_that_all_diverged_are_followed_by_a_lower_learning_rate_and_then_by_none() -> None:
    lost = [made(16, lr, status=RunStatus.DIVERGED) for lr in (1.0, 0.1)]
    following = asked(lost).lengths.next
    assert following is not None
    assert following.lr < 0.1
    assert asked([made(16, 2.0**-k, status=RunStatus.DIVERGED) for k in range(6)]).lengths.next is None
    plan = build_plan(asked(lost))
    assert plan.status is PlanStatus.TARGET_NOT_REACHED
    assert plan.status.exit_status == 3
    assert "of 2 runs 2 diverged. Learning rates from 0.1 to 1 were tried at batch size 16" in plan.message
    assert "--budget" not in plan.message


def test_a_run_that_was_stopped_counts_with_how_far_behind_it_was() -> None:
    best, slow = made(16, 0.08), made(16, 0.01)
    cut = replace(slow, rows=slow.rows[:-15])
    step = cut.rows[-1]["step"]
    assert cut.result is not None
    cut = replace(cut, result=replace(cut.result, status=RunStatus.BEHIND, steps=step))
    end, whole = (asked([best, run]).lengths.ends[1] for run in (cut, slow))
    assert end.left == pytest.approx(whole.left, abs=0.02)
    assert end.sd > whole.sd


def test_rules_end_hopeless_runs_only() -> None:
    rules = asked([made(16, 0.08)]).lengths.rules(250)

    def ended(run: StoredRun) -> list[RunStatus]:
        history = History(target=Target(metric="val_loss", value=-1.0, mode="min"))
        found: list[RunStatus | None] = []
        for row in run.rows:
            history.add(row["step"], row["train_loss"], row["metrics"])
            found += [rule(history) for rule in rules] if row["step"] else []
        return [status for status in found if status is not None]

    assert ended(made(16, 0.05)) == []
    assert set(ended(made(16, 0.0001))) == {RunStatus.BEHIND}


def test_a_run_that_never_gets_better_than_fresh_weights_ends() -> None:
    history = History(target=Target(metric="val_loss", value=0.1, mode="min"))
    for step in (0, 5, 10, 15, 20):
        history.add(step, 2.3, {"val_loss": 2.3 + 0.01 * (step > 0)})
    assert NoGainRule(steps=20)(history) is RunStatus.BEHIND
    assert NoGainRule(steps=21)(history) is None
    history.add(25, 2.3, {"val_loss": 2.0})
    assert NoGainRule(steps=20)(history) is None


def test_a_length_in_steps_is_the_same_for_every_batch_size_and_says_so() -> None:
    state = asked([made(16, 0.08, most=250), made(64, 0.32, most=250)], unit="steps", amount=250)
    assert {state.most_steps(size) for size in state.batch_sizes} == {250}
    assert not state.question.counts_examples
    plan = build_plan(state)
    assert plan.within == "250 steps"
    assert plan.message.endswith(" after 250 steps, at equal steps.")
    assert "at equal steps: a larger batch sees more examples, in more time." in " ".join(summary(plan))


def test_a_length_in_seconds_is_kept_by_the_clock_of_the_runs() -> None:
    """Runs were given 0.5 s by the bench, and took 0.8 s: within 0.5 s they were only so far."""
    given = {b: int(0.5 / step_time(b)) for b, _ in PAIRS}
    runs = [made(b, lr, most=given[b]) for b, lr in PAIRS]
    slower = [
        replace(run, rows=tuple({**row, "device_seconds": 1.6 * row["device_seconds"]} for row in run.rows))
        for run in runs
    ]
    slower = [
        replace(run, result=replace(run.result, device_seconds=1.6 * run.result.device_seconds))
        for run in slower
        if run.result
    ]
    plan = build_plan(asked(slower, unit="seconds", amount=0.5))
    assert plan.recipe is not None
    assert plan.verified is not None
    assert plan.recipe.steps * 1.6 * step_time(plan.recipe.batch_size) == pytest.approx(0.5, rel=0.05)
    assert plan.verified.steps <= plan.recipe.steps


def test_the_current_recipe_is_kept_where_none_is_clearly_better() -> None:
    current = CurrentRecipe(batch_size=16, lr=0.085)
    kept = build_plan(asked([made(16, 0.085), made(16, 0.08)], current=current))
    assert kept.status is PlanStatus.KEEP_CURRENT
    assert kept.verified is not None
    assert kept.recipe is not None
    assert kept.recipe.lr == 0.085
    poor = CurrentRecipe(batch_size=16, lr=0.002)
    plan = build_plan(asked([made(16, 0.002), *(made(*pair) for pair in PAIRS)], current=poor))
    assert plan.status is PlanStatus.OK
    assert plan.current_predicted is not None
    assert "The current recipe is expected to end at" in plan.message


def test_a_search_that_was_cut_off_names_the_best_so_far() -> None:
    plan = build_plan(asked([made(64, 0.2), made(16, 0.08)], cut_off=True))
    assert plan.status is PlanStatus.UNFINISHED
    assert plan.recipe is not None
    assert "Not finished: best so far batch size" in plan.message
    assert plan.message.endswith("after 4 epochs.")


def test_runs_that_were_never_better_than_fresh_weights_are_no_recipe() -> None:
    lost = [levelled(made(16, lr), 1.797, 1.84) for lr in (3.2, 0.8)]
    assert asked(lost).lengths.decision is None
    good = levelled(made(16, 0.05), 1.797, 0.97)
    decision = asked([*lost, good]).lengths.decision
    assert decision is not None
    assert (decision.batch_size, decision.lr) == (16, 0.05)


def test_where_nothing_was_better_than_fresh_weights_that_is_the_answer() -> None:
    lost = [levelled(made(16, lr), 1.797, 1.84) for lr in (3.2, 0.8)]
    plan = build_plan(asked([*lost, made(16, 9.0, status=RunStatus.DIVERGED)]))
    assert (plan.status, plan.recipe, plan.target) == (PlanStatus.TARGET_NOT_REACHED, None, None)
    assert "no run of 4 epochs was clearly better than fresh weights (val_loss 1.8)" in plan.message
    assert "of 3 runs 2 ran to the last step and 1 diverged. Learning rates from 0.8 to 9 were tried" in plan.message
    assert plan.message.endswith(". Give a longer --within")
    short_of_a_constant = replace(asked(lost), constant={"val_loss": 1.7})
    assert build_plan(short_of_a_constant).status is PlanStatus.TARGET_NOT_REACHED


def test_runs_of_a_batch_size_have_one_horizon_under_a_schedule_whatever_their_clocks_say() -> None:
    run = made(16, 0.08, most=400, schedule="cosine")
    assert run.result is not None
    rows = tuple({**row, "device_seconds": 1.6 * row["device_seconds"]} for row in run.rows)
    slow = replace(run, rows=rows, result=replace(run.result, device_seconds=1.6 * run.result.device_seconds))
    lengths = [
        asked([slow], unit="seconds", amount=0.5, schedule=schedule).most_steps(16) for schedule in ("cosine", None)
    ]
    assert lengths[0] == int(0.5 / step_time(16)) > (lengths[1] or 0)


def test_an_interval_lies_inside_what_the_metric_can_be_and_one_that_says_nothing_is_left_out() -> None:
    lengths = asked([levelled(made(16, lr), 1.8, v) for lr, v in ((0.08, 0.9), (0.02, 1.2), (0.32, 1.2))]).lengths
    whole = lengths.end(16, 0.08)
    assert whole.low is not None
    assert replace(lengths, limits=Range(low=whole.value)).end(16, 0.08).low == whole.value
    wild = {pair: replace(each, spread=5.0) for pair, each in lengths.whole.items()}
    end = replace(lengths, whole=wild).end(16, 0.08)
    assert (end.low, end.high) == (None, None)
    assert end.value == pytest.approx(0.9, rel=0.05)


def test_a_run_that_ended_clearly_worse_than_another_is_not_answered_whatever_the_law_says() -> None:
    """Runs at the same learning rate for its batch size on both sides make the law expect much of the bad one."""
    around = [levelled(made(16, lr), 1.8, v) for lr, v in ((0.04, 1.3), (0.16, 1.28), (0.02, 1.5), (0.32, 1.5))]
    bad, best = levelled(made(16, 0.08), 1.8, 1.6, 0.02), levelled(made(64, 0.01), 1.8, 1.1, 0.02)
    lengths = asked([*around, bad, best]).lengths
    assert (16, 0.08) not in lengths.answers
    assert lengths.answers == [(64, 0.01)]


def test_an_end_that_is_worse_by_no_more_than_its_noise_may_be_answered() -> None:
    one, other = levelled(made(16, 0.08), 1.8, 1.0, 0.3), levelled(made(16, 0.04), 1.8, 1.06, 0.3)
    assert len(asked([one, other]).lengths.answers) == 2


def test_runs_that_did_not_train_do_not_count_against_the_trainings() -> None:
    lost = [levelled(made(16, lr), 1.797, 1.84) for lr in (20.0, 5.0, 0.6)]
    good = [levelled(made(16, lr), 1.797, v) for lr, v in ((0.075, 0.9), (0.0094, 1.2))]
    assert asked([*lost, *good]).lengths.next is not None


def test_the_law_looks_around_the_learning_rate_that_the_climb_came_to() -> None:
    """A range test that broke far too early: the best is 12 octaves above it."""
    ends = ((0.048, 1.75), (0.012, 1.79), (0.192, 1.6), (1.54, 1.3), (12.3, 0.9), (98.4, 1.2))
    runs = [levelled(made(16, lr), 1.8, v) for lr, v in ends]
    lengths = asked([*runs, levelled(made(64, 24.6), 1.8, 0.91)]).lengths
    assert lengths.centre.lr == 12.3
    assert max(lr for _, lr in lengths.candidates) > 100
    near = asked([levelled(made(16, lr), 1.8, v) for lr, v in ((0.048, 0.9), (0.012, 1.2), (0.192, 1.3))]).lengths
    assert near.centre == near.start


def test_another_batch_size_is_run_before_one_is_answered() -> None:
    runs = [levelled(made(16, lr), 1.8, v) for lr, v in ((0.08, 0.9), (0.02, 1.2), (0.32, 1.2))]
    following = asked(runs).lengths.next
    assert following is not None
    assert following.batch_size != 16
    assert following.why == "does another batch size end better?"


def test_at_equal_steps_the_first_batch_size_is_large() -> None:
    state = asked([made(16, 0.08, most=250)], unit="steps", amount=250)
    assert state.lengths.start.batch_size == 64
    epochs = asked([made(16, 0.08)])
    assert epochs.lengths.start.batch_size == 16
    sizes = tuple(2**k for k in range(11))
    assert first_batch_size(sizes, lambda b: 200.0 * b, equal_steps=True) == 256


@pytest.mark.usefixtures("profile")
def test_every_run_has_its_length_and_the_answer_can_be_read_again(cli: Cli) -> None:
    words = f"find digits --hardware machine.json --within 3epochs {DENSE} --out out"
    plan = answer(cli, words)
    assert plan["status"] == "ok"
    assert plan["expected_end"]["low"] < plan["expected_end"]["high"]
    before = curves_of("out")
    assert without_clock(answer(cli, words)) == without_clock(plan)
    assert curves_of("out") == before
