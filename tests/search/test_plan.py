"""Plans from made-up searches whose truth is known: every ending, the arithmetic, and what stands in plan.json."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from batchscope.report.summary import summary
from batchscope.search.plan import build_plan, clear_gain
from batchscope.search.question import CurrentRecipe
from batchscope.search.state import Parts, Recorded, SearchState
from batchscope.store.codec import decode, encode
from batchscope.store.records import EarlyStop, Plan, PlanStatus, Recipe, RunStatus, Target
from batchscope.training.count import count

from . import searches
from .searches import EXAMPLES, TARGET, TRIED, run, search, step_time, true_steps

CURRENT = {
    "slow": CurrentRecipe(batch_size=8, lr=0.01),
    "same": CurrentRecipe(batch_size=64, lr=0.2),
    "near": CurrentRecipe(batch_size=80, lr=0.21),
    "hopeless": CurrentRecipe(batch_size=8, lr=10.0),
}


@functools.cache
def state(case: str) -> SearchState:
    if case.startswith("current-"):
        return search(current=CURRENT[case.removeprefix("current-")])
    cases: dict[str, Any] = {
        "plain": search,
        "examples": lambda: search(objective="examples"),
        "examples-current": lambda: search(objective="examples", current=CurrentRecipe(batch_size=512, lr=0.3)),
        "memory": lambda: search(bench=searches.bench(48, memory_bound=True)),
        "accumulated": lambda: search(
            bench=searches.bench(6, memory_bound=True, update_s=searches.FIXED_S), current=CURRENT["near"]
        ),
        "far": lambda: search([run(16, 0.08), run(16, 0.04), run(16, 0.1)]),
        "never": lambda: search([run(64, 0.2, most=50), run(64, 0.01, most=80)]),
        "no-target": lambda: search([run(64, 0.2, most=50)], target=None),
        "no-run": lambda: search([], target=None),
        "stopped": lambda: search([searches.without_result(run(64, 0.2))]),
    }
    return cases[case]()


@functools.cache
def plan(case: str) -> Plan:
    return build_plan(state(case))


def recipe(case: str) -> Recipe:
    found = plan(case).recipe
    assert found is not None
    return found


WITH_RECIPE = ("plain", "examples", "memory", "accumulated", "far", "current-slow", "current-same", "current-hopeless")
WITHOUT = ("never", "no-target", "no-run", "stopped")


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("plain", PlanStatus.OK),
        ("examples", PlanStatus.OK),
        ("memory", PlanStatus.MEMORY_BOUND),
        ("far", PlanStatus.EXTRAPOLATED),
        ("current-slow", PlanStatus.OK),
        ("current-same", PlanStatus.KEEP_CURRENT),
        ("current-near", PlanStatus.KEEP_CURRENT),
        ("never", PlanStatus.TARGET_NOT_REACHED),
        ("stopped", PlanStatus.TARGET_NOT_REACHED),
        ("no-target", PlanStatus.INSUFFICIENT_DATA),
        ("no-run", PlanStatus.INSUFFICIENT_DATA),
    ],
)
def test_every_way_to_end(case: str, status: PlanStatus) -> None:
    assert plan(case).status is status
    assert (plan(case).recipe is None) == (status.exit_status == 3)


def test_the_recipe_is_within_five_percent_of_the_best_in_truth() -> None:
    found, sizes = recipe("plain"), state("plain").batch_sizes
    best = min(true_steps(b, searches.best_lr(b)) * step_time(b) for b in sizes)
    assert true_steps(found.batch_size, found.lr) * step_time(found.batch_size) <= 1.05 * best


@pytest.mark.parametrize("case", [*WITH_RECIPE, *WITHOUT])
def test_every_number_in_the_file_is_finite_or_null_and_the_file_reads_back_as_the_plan(case: str) -> None:
    text = json.dumps(encode(plan(case)), allow_nan=False)
    assert all(math.isfinite(number) for number in numbers(json.loads(text)))
    assert decode(Plan, json.loads(text)) == plan(case)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("case", WITH_RECIPE)
def test_the_parts_of_a_batch_make_the_batch_and_epochs_make_the_steps(case: str) -> None:
    for found in (recipe(case), *(a.recipe for a in plan(case).alternatives)):
        assert found.micro_batch_size * found.grad_accum_steps * found.world_size == found.batch_size
        assert found.micro_batch_size <= state(case).bench.largest_micro_batch_size
        assert found.steps_per_epoch == EXAMPLES / found.batch_size
        assert found.epochs == found.steps * found.batch_size / EXAMPLES
        assert found.optimizer_changes == {}


@pytest.mark.parametrize("case", WITH_RECIPE)
def test_count_agrees_about_steps_and_epochs(case: str) -> None:
    """The recipe counts by the rule for a partial last batch that is the default of `batchscope count`."""
    for found in (recipe(case), *(a.recipe for a in plan(case).alternatives)):
        there = count(examples=EXAMPLES, batch_size=found.batch_size, steps=found.steps)
        assert (there.epochs, there.steps_per_epoch) == (found.epochs, found.steps_per_epoch)
        assert count(examples=EXAMPLES, batch_size=found.batch_size, epochs=found.epochs).steps == found.steps


@pytest.mark.parametrize("case", WITH_RECIPE)
def test_intervals_hold_their_values_and_units_multiply(case: str) -> None:
    predicted, size = plan(case).predicted, recipe(case).batch_size
    assert predicted is not None
    steps, examples = predicted.steps_to_target, predicted.examples_to_target
    for estimate in (steps, examples, predicted.step_time_s, predicted.time_to_target_s, predicted.peak_memory_bytes):
        assert estimate.low is not None
        assert estimate.value is not None
        assert estimate.high is not None
        assert 0 < estimate.low <= estimate.value <= estimate.high
    assert steps.value is not None
    assert examples.value == pytest.approx(steps.value * size)
    assert predicted.time_to_target_s.value == pytest.approx(steps.value * (predicted.step_time_s.value or 0), rel=0.03)
    truth = true_steps(size, recipe(case).lr)
    assert (steps.low or 0) <= truth <= (steps.high or math.inf)


def test_no_interval_of_steps_is_narrower_than_seeds_and_the_laws_misfit_make_it() -> None:
    """Three dozen runs without noise: what is left is the spread of single runs about a law that is not exact."""
    exact = [run(b, f * searches.best_lr(b), seed=s) for b in (16, 64, 256) for f in (0.4, 0.8, 1.3) for s in range(4)]
    predicted = build_plan(search(exact)).predicted
    assert predicted is not None
    steps = predicted.steps_to_target
    assert math.log((steps.high or 0) / (steps.low or math.inf)) > 2 * 1.645 * 0.14


def test_a_clear_gain_replaces_the_current_recipe_and_says_by_how_much() -> None:
    low, value, high = clear_gain(state("current-slow"))
    current, found = CURRENT["slow"], recipe("current-slow")
    truth = true_steps(current.batch_size, current.lr) * step_time(current.batch_size)
    truth /= true_steps(found.batch_size, found.lr) * step_time(found.batch_size)
    assert 1.05 < low < truth < high
    gain = f"{value:.2f} times as long as the best one found (90 % credible interval {low:.2f} to {high:.2f})"
    assert gain in plan("current-slow").message
    assert plan("current-slow").current_predicted is not None


def test_no_clear_gain_keeps_the_current_recipe_as_it_is() -> None:
    assert clear_gain(state("current-near"))[0] < 1.05
    assert (recipe("current-near").batch_size, recipe("current-near").lr) == (80, 0.21)
    assert "no clear gain of 5 %" in plan("current-near").message


def test_a_current_recipe_that_is_the_best_found_is_kept_without_naming_an_alternative() -> None:
    assert plan("current-same").message == "Keep the current recipe: nothing better was found."


def test_a_current_learning_rate_that_cannot_work_is_called_so_and_given_no_time() -> None:
    found = plan("current-hopeless")
    assert found.status is PlanStatus.OK
    assert found.current_predicted is None
    assert "learning rate 10 is too high for batch size 8" in found.message
    assert "for which nothing could be predicted" in " ".join(summary(found))


def test_a_gain_in_examples_is_not_called_a_gain_in_speed() -> None:
    message = plan("examples-current").message
    assert "as many examples as the best one found" in message
    assert "fast" not in message
    assert "long" not in message


def test_f36_a_batch_that_changes_takes_learning_rate_and_accumulation_along_and_says_so() -> None:
    old, new = CURRENT["slow"], recipe("current-slow")
    assert new.batch_size != old.batch_size
    assert new.lr == pytest.approx(searches.best_lr(new.batch_size), rel=0.5)
    said = " ".join(summary(plan("current-slow")))
    assert f"batch size {new.batch_size} and learning rate {new.lr:g}" in said
    assert f"It replaces batch size {old.batch_size} with learning rate {old.lr:g}" in said


def test_f36_a_batch_that_does_not_fit_is_accumulated_not_shrunk() -> None:
    found = recipe("accumulated")
    assert (found.batch_size, found.lr) == (80, 0.21)
    assert (found.micro_batch_size, found.grad_accum_steps) == (5, 16)
    assert "16 accumulated micro-batches of 5 examples" in " ".join(summary(plan("accumulated")))


def test_memory_that_sets_the_batch_size_is_named() -> None:
    assert recipe("memory").batch_size <= 48
    assert re.search(r"Memory sets the batch size: \d+ would be faster if more than 48 fitted", plan("memory").message)


def test_a_recipe_far_beyond_every_run_asks_to_be_checked() -> None:
    assert recipe("far").batch_size > 2 * 16
    assert "times the largest that was run: check it" in plan("far").message


def test_an_unreached_target_shows_the_closest_approach() -> None:
    value = searches.metric(50, true_steps(64, 0.2))
    assert f"val_loss {value:.4g} with batch size 64 and learning rate 0.2 after 50 steps" in plan("never").message
    assert f"in a run that {RunStatus.OUT_OF_STEPS.ending}. The other run" in plan("never").message
    assert "no run was finished" in plan("stopped").message


def test_without_a_target_the_plan_says_what_to_give() -> None:
    assert "Give --target, or a longer --budget" in plan("no-target").message
    assert plan("no-target").measured.critical_batch_size.value is None


def test_a_run_at_exactly_the_recipe_verifies_it() -> None:
    verified, found = plan("plain").verified, recipe("plain")
    assert (found.batch_size, found.lr) in TRIED
    assert verified is not None
    assert verified.steps == pytest.approx(true_steps(found.batch_size, found.lr))
    assert verified.time_s == pytest.approx(verified.steps * step_time(found.batch_size))
    assert TARGET.met_by(verified.metric)
    assert plan("far").verified is None


def test_alternatives_are_better_at_what_they_say() -> None:
    chosen, predicted = recipe("plain"), plan("plain").predicted
    assert predicted is not None
    seen = {(chosen.batch_size, chosen.lr)}
    for alternative in plan("plain").alternatives:
        found = alternative.recipe
        assert (found.batch_size, found.lr) not in seen
        assert found.lr == pytest.approx(searches.best_lr(found.batch_size), rel=0.4)
        seen.add((found.batch_size, found.lr))
    (fewest,) = (a for a in plan("plain").alternatives if a.why.startswith("fewest examples"))
    (lowest,) = (a for a in plan("plain").alternatives if a.why.startswith("least memory"))
    assert (fewest.predicted.examples_to_target.value or math.inf) < (predicted.examples_to_target.value or 0)
    assert (lowest.predicted.peak_memory_bytes.value or math.inf) < (predicted.peak_memory_bytes.value or 0)
    assert (lowest.predicted.time_to_target_s.value or 0) < 1.7 * (predicted.time_to_target_s.value or 0)
    assert recipe("examples").batch_size < chosen.batch_size
    assert any(a.why.startswith("shortest training time") for a in plan("examples").alternatives)


def test_the_price_counts_in_trainings_at_the_recipe() -> None:
    cost, predicted = plan("plain").search, plan("plain").predicted
    assert predicted is not None
    assert cost.device_seconds == pytest.approx(state("plain").device_seconds())
    assert cost.run_equivalents == pytest.approx(cost.device_seconds / (predicted.time_to_target_s.value or 0))
    assert cost.runs == len(TRIED)
    assert plan("never").search.run_equivalents is None


def test_patience_is_twice_the_longest_wait_between_two_improvements() -> None:
    """A run at batch 64 that did not improve between steps 40 and 120; the other runs are at other batch sizes."""
    found = build_plan(search([run(64, 0.2, wobble=(40, 120)), run(256, 0.32, wobble=(10, 90))])).recipe
    assert found is not None
    assert found.batch_size == 64
    before, after = 40, 124  # evaluations nearest to the ends of the flat part
    assert found.early_stop.patience == pytest.approx(2 * (after - before) * 64 / EXAMPLES, rel=0.1)
    assert recipe("plain").early_stop.patience >= 1.0


@pytest.mark.parametrize("case", WITH_RECIPE)
def test_patience_is_a_quarter_of_the_training_at_least(case: str) -> None:
    found = recipe(case)
    assert found.epochs is not None
    assert 0.25 * found.epochs <= found.early_stop.patience <= found.epochs


def test_a_decaying_schedule_takes_its_length_from_the_run_that_decayed() -> None:
    decayed = run(64, 0.2, steps=150.0, most=160, schedule="linear", purpose="horizon")
    found = build_plan(search([*(run(b, lr) for b, lr in TRIED), decayed], schedule="linear")).recipe
    assert found is not None
    assert (found.batch_size, found.lr, found.schedule, found.steps) == (64, 0.2, "linear", 160)


@pytest.mark.parametrize(("share", "name"), [(0.15, "before the milestone"), (0.6, "beyond it")])
def test_an_easier_target_is_answered_from_runs_that_went_to_the_milestone_only(share: float, name: str) -> None:
    """All made-up curves are one curve, so a target at this share of the way takes this share of the steps."""
    milestone, easier = (replace(TARGET, value=TARGET.value * (1 - 0.1 * math.log(part))) for part in (1 / 3, share))
    waiting = [
        run(b, lr, most=math.ceil(true_steps(b, lr) * 0.36), status=RunStatus.PAUSED) for b, lr in TRIED if b != 64
    ]
    finished = [run(b, lr) for b, lr in TRIED if b == 64]
    found = build_plan(search([*finished, *waiting], milestone=milestone, easier_targets=(easier,)))
    (answer,) = found.easier_targets
    assert answer.target == easier, name
    assert answer.recipe is not None
    assert answer.predicted is not None
    pair = answer.recipe.batch_size, answer.recipe.lr
    steps, truth = answer.predicted.steps_to_target, share * true_steps(*pair)
    assert (steps.low or 0) < truth < (steps.high or math.inf)
    assert steps.value == pytest.approx(truth, rel=0.25)
    best = min(true_steps(b, lr) * step_time(b) for b, lr in TRIED)
    assert true_steps(*pair) * step_time(pair[0]) < 1.2 * best


def test_an_easier_target_that_no_run_passed_has_no_recipe() -> None:
    other = Target(metric="other", value=0.1, mode="min")
    (answer,) = build_plan(search(easier_targets=(other,))).easier_targets
    assert (answer.recipe, answer.predicted) == (None, None)


def test_where_the_learning_rate_decays_an_easier_target_is_answered_at_a_constant_one() -> None:
    decayed = run(64, 0.2, steps=150.0, most=160, schedule="linear", purpose="horizon")
    easier = replace(TARGET, value=TARGET.value * (1 + 0.1 * math.log(2)))
    state = search([*(run(b, lr) for b, lr in TRIED), decayed], schedule="linear", easier_targets=(easier,))
    (answer,) = build_plan(state).easier_targets
    assert answer.recipe is not None
    assert answer.recipe.schedule == "constant"
    assert answer.recipe.steps == pytest.approx(0.5 * true_steps(answer.recipe.batch_size, answer.recipe.lr), rel=0.2)


def test_what_was_not_recorded_stays_open() -> None:
    """A plan is made of the same state with less recorded, and has no number that would stand in for a measurement."""
    nothing = Recorded(step_times=False, memory=False, lrs=False, evaluations=False)
    found = build_plan(search(objective="examples", recorded=nothing, examples=None, parts=given(search())))
    assert found.recipe is not None
    assert found.predicted is not None
    assert (found.recipe.lr, found.recipe.steps_per_epoch, found.recipe.epochs) == (None, None, None)
    assert found.recipe.early_stop == EarlyStop(best_epoch=None, patience=None)
    assert found.predicted.step_time_s.value is found.predicted.time_to_target_s.value is None
    assert found.predicted.steps_to_target.value is not None
    assert found.measured.hardware_knee.value is found.measured.largest_micro_batch_size.value is None
    assert found.curves is not None
    assert not found.curves.time_to_target_s.batch_size
    assert not found.curves.lr.batch_size
    assert (found.bench, found.alternatives, found.examples_in_training_set) == (None, (), 0)
    assert (found.search.device_seconds, found.search.run_equivalents) == (0.0, None)
    assert found.verified is None or found.verified.time_s is None


def given(state: SearchState) -> Parts:
    return Parts(observations=tuple(state.observations), batch_sizes=state.batch_sizes)


def test_parts_that_are_brought_along_take_the_place_of_those_that_follow_from_runs() -> None:
    whole = search()
    other = search([], parts=given(whole), examples=None, recorded=Recorded(evaluations=False))
    assert other.reached == whole.reached
    assert other.decision == whole.decision
    law = replace(whole.law, decide=lambda *_: replace(whole.decision, batch_size=16), misfit=1.0)
    decided = search([], parts=replace(given(whole), law=law))
    assert decided.decision.batch_size == 16
    wide, narrow = (build_plan(each).predicted for each in (decided, other))
    assert wide is not None
    assert narrow is not None
    assert (wide.steps_to_target.high or 0) > 2 * (narrow.steps_to_target.high or math.inf)
