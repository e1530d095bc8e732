"""Rows and summaries from runs that are written down here, against other libraries and simulation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats

from batchscope.laboratory.conclusions import best_rates, findings_of, paired_difference
from batchscope.laboratory.courses import course_of, phases
from batchscope.laboratory.page.page import study_contents
from batchscope.laboratory.page.sections import learning_rates
from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.summary import roughness, row_of, summarise
from batchscope.report.blocks import Figure
from batchscope.report.page import draw
from batchscope.store.records import Environment, Row, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run
from batchscope.training.stopping import History, PatienceRule, RoseRule

METRIC = Target(metric="val_loss", value=-1.0, mode="min")
EXAMPLES = 100


def stored(
    batch_size: int,
    lr: float,
    seed: int,
    values: Sequence[float],
    *,
    status: RunStatus = RunStatus.OUT_OF_STEPS,
    accuracy: float = 0.9,
    seconds: Sequence[float] | None = None,
) -> StoredRun:
    """A run with these validation losses, one an epoch; the training loss is half of them."""
    per_epoch = EXAMPLES // batch_size
    rows: list[Row] = []
    for epoch, value in enumerate(values):
        step = epoch * per_epoch
        metrics = {"val_loss": value, "test_loss": value + 0.1, "test_accuracy": accuracy}
        spent = (seconds or range(len(values)))[epoch]
        at: dict[str, Any] = {"examples": epoch * EXAMPLES, "device_seconds": float(spent)}
        rows.append(evaluation(step, metrics, train_loss=value / 2 if epoch else None, **at))
        part = {"train_loss_eval": value / 2, "train_accuracy_eval": 0.95}
        rows.append({"kind": "train_part", "step": step, "examples": EXAMPLES, "metrics": part})
    return stored_run(
        batch_size, lr, rows, name=f"b{batch_size}-lr{lr}-s{seed}", status=status, seed=seed, purpose="study"
    )


def study_of(runs: Sequence[StoredRun], **changes: Any) -> Study:
    rows = tuple(row_of(run, METRIC, EXAMPLES) for run in runs)
    here = Environment(
        batchscope="0",
        python="3",
        torch=None,
        numpy="2",
        platform="p",
        device="cpu",
        device_name="",
        cpu_count=1,
        threads=1,
    )
    members: dict[str, Any] = {
        "study": "sweep",
        "task": "t",
        "rows": rows,
        "summary": summarise(rows, METRIC),
        "findings": (),
        "question": StudyQuestion(batch_sizes=(10, 50), lrs=(0.1,), length=Length(unit="epochs", amount=3)),
        "metric": "val_loss",
        "larger_is_better": False,
        "examples": EXAMPLES,
        "planned": len(runs),
        "complete": True,
        "environment": here,
    }
    return Study(**{**members, **changes})


def test_final_is_the_last_and_best_is_by_validation() -> None:
    row = row_of(stored(10, 0.1, 0, [4.0, 2.0, 1.0, 3.0]), METRIC, EXAMPLES)
    found = row.values
    assert (found["final_val_loss"], found["best_val_loss"], found["best_epoch"], found["best_step"]) == (3, 1, 2, 20)
    assert (found["final_test_loss"], found["best_test_loss"]) == (pytest.approx(3.1), pytest.approx(1.1))
    assert (found["train_loss"], found["final_train_loss_eval"], found["best_train_loss_eval"]) == (1.5, 1.5, 0.5)
    assert found["final_accuracy_gap"] == pytest.approx(0.05)
    assert (found["final_loss_ratio"], found["best_loss_ratio"]) == (2.0, 2.0)


def test_step_time_is_the_median_without_the_first_stretch() -> None:
    values = row_of(stored(10, 0.1, 0, [4.0] * 6, seconds=[0, 50, 60, 70, 90, 100]), METRIC, EXAMPLES).values
    assert (values["step_time_s"], values["epoch_time_s"], values["train_time_s"]) == (1.0, 10.0, 100.0)


def test_a_summary_is_a_t_interval() -> None:
    values = [0.31, 0.35, 0.29, 0.4]
    found = summarise([row_of(stored(10, 0.1, s, [1.0, v]), METRIC, EXAMPLES) for s, v in enumerate(values)], METRIC)
    estimate = found[0].estimates["best_val_loss"]
    interval = scipy.stats.t.interval(0.90, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert estimate.low is not None
    assert estimate.high is not None
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((np.mean(values), *interval), rel=0.02)
    assert estimate.low / np.mean(values) == pytest.approx(np.mean(values) / estimate.high), "on logarithms, above 0"
    assert estimate.n == 4


def test_roughness_is_the_deviation_of_noise_about_a_line() -> None:
    generator = np.random.default_rng(1)
    line = np.linspace(3.0, 1.0, 40_000)
    assert roughness(list(line + generator.normal(0.0, 0.2, len(line)))) == pytest.approx(0.2, rel=0.03)
    assert roughness(list(line)) == pytest.approx(0.0, abs=1e-12)
    assert roughness([1.0, 2.0, 3.0]) is None


def test_the_difference_between_arms_is_paired_by_seed() -> None:
    first, second = [1.0, 2.0, 4.0], [1.5, 2.4, 4.9]
    runs = [stored(b, 0.1, s, [9.0, v]) for b, vs in ((10, first), (50, second)) for s, v in enumerate(vs)]
    found = study_of(runs)
    small, large = best_rates(found, "")
    change = paired_difference(found, "best_val_loss", small, large)
    differences = np.subtract(second, first)
    interval = scipy.stats.t.interval(0.90, 2, loc=differences.mean(), scale=scipy.stats.sem(differences))
    assert (change.value, change.low, change.high) == pytest.approx((differences.mean(), *interval))


def test_a_rate_at_which_a_seed_diverged_is_not_the_best() -> None:
    runs = [stored(10, 0.1, s, [9.0, 2.0]) for s in (0, 1)]
    runs += [stored(10, 0.2, 0, [9.0, 1.0]), stored(10, 0.2, 1, [9.0, math.inf], status=RunStatus.DIVERGED)]
    found = study_of(runs)
    assert [(s.lr, s.diverged, s.best_lr) for s in found.summary] == [(0.1, 0, True), (0.2, 1, False)]
    assert found.rows[-1].flat()["final_val_loss"] is None
    assert any("1 of 2 at batch size 10 at learning rate 0.2" in f.statement for f in findings_of(found))


def test_learning_rates_are_compared_over_the_seeds_that_all_have() -> None:
    first = [stored(10, lr, 0, [9.0, v]) for lr, v in ((0.1, 2.0), (0.2, 1.0))]
    cut = stored(10, 0.1, 1, [9.0, 0.5])
    assert [s.best_lr for s in study_of([*first, cut]).summary] == [False, True], "a budget that ended chooses nothing"
    second = stored(10, 0.2, 1, [9.0, 3.0])
    assert [s.best_lr for s in study_of([*first, cut, second]).summary] == [True, False]
    apart = [stored(10, 0.1, s, [9.0, 2.0]) for s in (0, 1)]
    assert [s.best_lr for s in study_of([*apart, stored(10, 0.2, 2, [9.0, 1.0])]).summary] == [True, False]


def test_what_training_data_alone_would_have_chosen() -> None:
    runs = [stored(10, 0.1, 0, [9.0, 1.0, 3.0]), stored(10, 0.2, 0, [9.0, 2.0, 2.0])]
    phrases = [f.statement for f in findings_of(study_of(runs))]
    assert any(
        s.startswith("chosen on training data alone, it would have been batch size 10 at learning rate 0.2")
        for s in phrases
    )


def test_courses_are_means_and_phases_follow_from_the_standard_error() -> None:
    runs = [
        stored(10, 0.1, 0, [10.0, 3.0, 1.00, 0.9, 1.00, 2.0]),
        stored(10, 0.1, 1, [10.0, 3.0, 1.10, 1.1, 1.10, 2.0]),
    ]
    found = study_of(runs)
    course = course_of(found, runs, found.summary[0])
    assert course is not None
    assert course.epochs == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert course.mean["val_loss"] == pytest.approx((10.0, 3.0, 1.05, 1.0, 1.05, 2.0))
    assert course.low["val_loss"][3], course.high["val_loss"][3] == (0.9, 1.1)
    assert course.standard_error["val_loss"][3] == pytest.approx(scipy.stats.sem([0.9, 1.1]))
    marked = phases(course, "val_loss")
    assert marked is not None
    assert (marked.best_epoch, marked.well_from, marked.well_until, marked.end) == (3.0, 2.0, 4.0, 5.0)
    assert marked.over_trained
    assert not marked.still_improving


def test_a_course_ends_with_the_first_run_that_ends() -> None:
    runs = [stored(10, 0.1, 0, [4.0, 3.0, 2.0, 1.0]), stored(10, 0.1, 1, [4.0, 3.0, 2.0])]
    found = study_of(runs)
    course = course_of(found, runs, found.summary[0])
    assert course is not None
    assert course.epochs == (0.0, 1.0, 2.0)


# --- rules that end a run -----------------------------------------------------------------------------------------


def history(values: Sequence[float], losses: Sequence[float | None] = ()) -> History:
    found = History(target=METRIC)
    for epoch, value in enumerate(values):
        found.add(10 * epoch, losses[epoch] if losses else None, {"val_loss": value})
    return found


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([5, 4, 3], False),
        ([5, 4, 4.1, 4.2], True),
        ([5, 4, 4.1], False),
        ([5, 4, 4.1, 3.9, 4], False),
        ([5, 6, 7], True),
    ],
)
def test_patience_is_counted_in_epochs_since_the_best(values: list[float], stops: bool) -> None:
    rule = PatienceRule(patience=2, steps_per_epoch=10)
    assert rule(history(values)) is (RunStatus.STOPPED_EARLY if stops else None)


@pytest.mark.parametrize(
    ("losses", "lost"),
    [([None, 30, 30, 30], True), ([None, 30, 30], False), ([None, 30, 5, 30], False), ([None, 9, 9, 9], False)],
)
def test_a_run_is_lost_when_its_training_loss_stays_far_above_the_start(losses: list[float | None], lost: bool) -> None:
    rule = RoseRule()
    assert rule(history([1.0] * len(losses), losses)) is (RunStatus.DIVERGED if lost else None)


# --- the page -----------------------------------------------------------------------------------------------------


def sections_of(page: str) -> str:
    return page.partition("<main>")[2].partition("</main>")[0]


def test_the_page_shows_every_figure_and_escapes_what_users_wrote() -> None:
    runs = [
        stored(b, lr, s, [9.0, 3.0, 2.0 + lr + 0.01 * s, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.3])
        for b in (10, 50)
        for lr in (0.1, 0.2)
        for s in (0, 1)
    ]
    found = study_of(runs, task="<b>mine</b>")
    page = sections_of(draw(study_contents(found, runs)))
    for figure in ("study-curves", "phases", "heat-map-0", "against-rate", "gap-accuracy-gap", "gap-loss-ratio"):
        assert f'<figure id="{figure}">' in page
    for figure in ("cost-epoch-time-s", "cost-roughness"):
        assert f'<figure id="{figure}">' in page
    assert "cost-peak-memory-bytes" not in page
    assert "<b>mine</b>" not in page
    assert "NaN" not in page
    for option in ("epoch", "step", "second"):
        assert f'aria-pressed="{"true" if option == "epoch" else "false"}">{option}</button>' in page


def test_a_page_of_nothing_says_so() -> None:
    page = sections_of(draw(study_contents(study_of([], complete=False, planned=4), [])))
    assert "No run has finished" in page
    lost = stored(10, 0.1, 0, [9.0, math.nan], status=RunStatus.DIVERGED)
    assert "Every run diverged" in sections_of(draw(study_contents(study_of([lost]), [lost])))


def test_the_legend_of_the_rates_keeps_the_whole_name_of_a_variant() -> None:
    runs = [stored(10, lr, seed, [4.0, 2.0 + seed / 10, 1.0]) for lr in (0.1, 0.2) for seed in (0, 1)]
    rows = [row_of(run, METRIC, EXAMPLES) for run in runs]
    named = tuple(
        dataclasses.replace(row, variant=variant)
        for row in rows
        for variant in ("momentum at learning rate 0.9", "plain")
    )
    study = study_of(runs, rows=named, summary=summarise(named, METRIC))
    figure = learning_rates.build(study, runs).blocks[-1]
    assert isinstance(figure, Figure)
    assert [key.label for key in figure.keys] == [
        "momentum at learning rate 0.9, batch size 10",
        "plain, batch size 10",
    ]
