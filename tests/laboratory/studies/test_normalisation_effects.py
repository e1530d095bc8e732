"""What batch normalisation changes and what is concluded, from runs that are written down here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from batchscope.laboratory.page.page import study_contents
from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.studies.batch_norm.conclusions import conclude
from batchscope.laboratory.studies.batch_norm.effects import (
    AFTER,
    BEFORE,
    NONE,
    NORMALISED,
    epochs_to_common_loss,
    ghost,
    higher,
    middle_pair,
    one_example,
    ordered,
    pairs,
    tolerances,
)
from batchscope.laboratory.studies.batch_norm.readings import drift_course, final_drift, lost_to, mean_drift, shift_of
from batchscope.laboratory.studies.batch_norm.sections import sections
from batchscope.laboratory.summary import row_of, summarise
from batchscope.report.page import draw
from batchscope.store.records import Environment, Row, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run

METRIC = Target(metric="val_loss", value=-1.0, mode="min")
EXAMPLES = 100
LRS = (0.01, 0.1, 1.0)
Drifts = Mapping[str, Sequence[float]]


def run_of(
    variant: str,
    batch_size: int,
    lr: float,
    seed: int,
    losses: Sequence[float],
    *,
    drifts: Drifts | None = None,
    diverged: bool = False,
) -> StoredRun:
    """Validation losses, one an epoch; the training loss is half of them, the accuracy 1 minus a tenth."""
    rows: list[Row] = []
    for epoch, value in enumerate(losses):
        step = epoch * EXAMPLES // batch_size
        metrics = {"val_loss": value, "val_accuracy": 1 - value / 10, "test_accuracy": 0.9}
        rows.append(evaluation(step, metrics, examples=epoch * EXAMPLES, device_seconds=float(epoch)))
        part = {"train_loss_eval": value / 2, "train_accuracy_eval": 0.95}
        rows.append({"kind": "train_part", "step": step, "examples": EXAMPLES, "metrics": part})
        layers = {name: {"drift": values[epoch]} for name, values in (drifts or {}).items()}
        rows.append({"kind": "activations", "step": step, "layers": layers})
    return stored_run(
        batch_size,
        lr,
        rows,
        name=f"{variant}-b{batch_size}-lr{lr}-s{seed}".replace(" ", "-").replace(",", ""),
        status=RunStatus.DIVERGED if diverged else RunStatus.OUT_OF_STEPS,
        settings={"variant": variant},
        seed=seed,
        purpose="study",
    )


def study_of(runs: Sequence[StoredRun], *, seeds: Sequence[int] = (0, 1), **measured: Any) -> Study:
    rows = tuple(row_of(run, METRIC, EXAMPLES) for run in runs)
    here = Environment(
        batchscope="0", python="3", torch=None, numpy="2", platform="p", device="cpu", device_name="", cpu_count=1,
        threads=1,
    )  # fmt: skip
    question = StudyQuestion(batch_sizes=(10, 50), lrs=LRS, seeds=tuple(seeds), length=Length(unit="epochs", amount=3))
    return Study(
        study="batch_norm", task="t", rows=rows, summary=summarise(rows, METRIC), findings=(), question=question,
        metric="val_loss", larger_is_better=False, examples=EXAMPLES, planned=len(runs), complete=True,
        environment=here, measurements={name.replace("__", "-"): value for name, value in measured.items()},
    )  # fmt: skip


def halving(per_epoch: float, jitter: float = 0.0) -> list[float]:
    return [8.0 * per_epoch**epoch + jitter for epoch in range(4)]


def test_epochs_to_the_lowest_loss_that_all_runs_reach() -> None:
    """Validation 8, 6, 4, 2 without and 8, 4, 2, 1 with: all reach a training loss of 1, at epochs 3 and 2."""
    runs = [run_of(NONE, 10, 0.1, seed, [8.0, 6.0, 4.0, 2.0]) for seed in (0, 1)]
    runs += [run_of(BEFORE, 10, 0.1, seed, [8.0, 4.0, 2.0, 1.0]) for seed in (0, 1)]
    study = study_of(runs)
    pair = middle_pair(study)
    assert pair is not None
    found = epochs_to_common_loss(study, runs, pair)
    assert found is not None
    assert (found.loss, found.without.value, found.with_.value) == (1.0, 3.0, 2.0)
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_between_evaluations_the_loss_is_straight_in_log_steps_and_without_a_fall_there_is_no_common_loss() -> None:
    runs = [run_of(NONE, 10, 0.1, 0, [8.0, 6.0, 5.0]), run_of(BEFORE, 10, 0.1, 0, [8.0, 7.0, 3.0])]
    study = study_of(runs)
    found = epochs_to_common_loss(study, runs, pairs(study)[0])
    assert found is not None
    assert found.with_.value == pytest.approx(math.sqrt(2.0))
    flat = [run_of(NONE, 10, 0.1, 0, [8.0, 8.5, 9.0]), run_of(BEFORE, 10, 0.1, 0, [8.0, 7.0, 3.0])]
    study = study_of(flat)
    assert epochs_to_common_loss(study, flat, pairs(study)[0]) is None


def test_rates_work_where_they_gain_nine_tenths_of_the_best() -> None:
    """From 10 the best of all gains 10; the bar is 9. Without: gains 5, 10, diverged; with: 9, 10, 9.5."""
    runs: list[StoredRun] = []
    for seed in (0, 1):
        runs += [run_of(NONE, 10, lr, seed, [10.0, end]) for lr, end in zip(LRS[:2], (5.0, 0.0), strict=True)]
        runs.append(run_of(NONE, 10, 1.0, seed, [10.0, 1.0], diverged=True))
        runs += [run_of(BEFORE, 10, lr, seed, [10.0, end]) for lr, end in zip(LRS, (1.0, 0.0, 0.5), strict=True)]
    found = tolerances(study_of(runs), runs, 10)
    without, with_ = found[NONE], found[BEFORE]
    assert without.decades == {0: pytest.approx(0.2), 1: pytest.approx(0.2)}
    assert with_.decades == {0: pytest.approx(2.0), 1: pytest.approx(2.0)}
    assert (without.highest, with_.highest) == ({0: 0.1, 1: 0.1}, {0: 1.0, 1: 1.0})
    assert (without.at_top, without.at_bottom, with_.at_top, with_.at_bottom) == (False, False, True, True)
    ratio = higher(without, with_)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((10.0, 10.0, 10.0))
    assert without.limit == pytest.approx(0.1)
    assert tolerances(study_of(runs[:1]), runs[:1], 10) == {}


def test_drift_is_a_mean_over_layers_and_seeds() -> None:
    runs = [
        run_of(NONE, 10, 0.1, 0, [8.0, 4.0], drifts={"2": [0.0, 1.0], "4": [0.0, 3.0]}),
        run_of(NONE, 10, 0.1, 1, [8.0, 4.0], drifts={"2": [0.0, 2.0], "4": [0.0, 4.0]}),
    ]
    study = study_of(runs)
    arm = study.summary[0]
    layers = final_drift(study, runs, arm)
    assert layers == {"2": {0: 1.0, 1: 2.0}, "4": {0: 3.0, 1: 4.0}}
    assert mean_drift(layers) == {0: 2.0, 1: 3.0}
    assert drift_course(study, runs, arm) == ([0.0, 1.0], [0.0, 2.5])


def test_shift_leaves_out_the_layers_that_normalisation_brings() -> None:
    run, other = run_of(NONE, 10, 0.1, 0, [8.0, 4.0]), run_of(BEFORE, 10, 0.1, 0, [8.0, 4.0])
    own = {"2": {"relative": 0.2, "cosine": 1.0}, "4": {"relative": 0.6, "cosine": 1.0}}
    study = study_of(
        [run, other],
        **{f"shift-best-{run.id}": own, f"shift-best-{other.id}": {**own, "1.0": {"relative": 9.0, "cosine": 0.0}}},
    )
    assert shift_of(study, study.summary[1], "best") == {0: pytest.approx(0.4)}
    assert shift_of(study, study.summary[1], "early") == {}


def test_what_is_lost_to_a_disturbance_is_counted_in_accuracy() -> None:
    run = run_of(NONE, 10, 0.1, 0, [8.0, 4.0])
    records = [
        {"kind": "none", "strength": 0.0, "metrics": {"val_loss": 1.0, "val_accuracy": 0.9}},
        {"kind": "noise", "strength": 0.5, "metrics": {"val_loss": 5.0, "val_accuracy": 0.7}},
    ]
    study = study_of([run], **{f"robustness-{run.id}": records})
    assert lost_to(study, study.summary[0]) == {("noise", 0.5): {0: pytest.approx(0.2)}}


# --- conclusions --------------------------------------------------------------------------------------------------


def whole_study(seeds: Sequence[int] = (0, 1, 2)) -> tuple[Study, list[StoredRun]]:
    """With normalisation everything is better, except that results scatter more and gradients shift more."""
    runs: list[StoredRun] = []
    measured: dict[str, Any] = {"refused": {BEFORE: "one value a channel"}}
    for seed in seeds:
        jitter = 0.01 * seed
        for size in (10, 50):
            for lr in LRS:
                worse = 0.2 * abs(math.log10(lr) + 1)
                drift = {"2": [0.0, 1.0, 2.0, 3.0 + jitter - size / 100]}
                runs.append(run_of(NONE, size, lr, seed, halving(0.5 + worse, jitter), drifts=drift))
                low = {"2": [0.0, 0.1, 0.2, 0.3 + jitter]}
                for variant in (BEFORE, AFTER, *([ghost(10)] if size == 50 else [])):
                    runs.append(run_of(variant, size, lr, seed, halving(0.4 + worse / 4, 2 * jitter), drifts=low))
    for run in runs:
        normalised = run.config.settings["variant"] != NONE
        lost = (0.1 if normalised else 0.3) + 0.01 * run.config.seed
        clean = {"kind": "none", "strength": 0.0, "metrics": {"val_loss": 1.0, "val_accuracy": 0.9}}
        noisy = {"kind": "noise", "strength": 1.0, "metrics": {"val_loss": 1.0, "val_accuracy": 0.9 - lost}}
        measured[f"robustness-{run.id}"] = [clean, noisy]
        shift = (0.5 if normalised else 0.2) + 0.01 * run.config.seed - run.config.batch_size / 1000
        for when in ("early", "best", "one-rate"):
            measured[f"shift-{when}-{run.id}"] = {"2": {"relative": shift, "cosine": 1.0}}
    orders = {NONE: (4.0, 4.1, 3.9, 4.05, 3.95), BEFORE: (2.0, 4.0, 1.0, 3.0, 5.0)}
    for variant, values in orders.items():
        runs += [run_of(ordered(variant), 10, 0.1, seed, [8.0, value]) for seed, value in enumerate(values)]
    layer = {"layer": "1.0", "channels": 4, "flat": 1, "mean": 1e-7, "deviation": 1e-5}
    layers = [{**layer, "mode": "training"}, {**layer, "mode": "evaluation", "mean": 0.4}]
    measured["definition"] = {"run": runs[0].id, "layers": layers}
    return study_of(runs, seeds=seeds, **measured), runs


def verdicts(study: Study, runs: Sequence[StoredRun]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for finding in conclude(study, runs):
        conclusion = finding.statement.partition("; here it is ")[0].removeprefix("published: ")
        found.setdefault(conclusion, []).append(finding.verdict)
    return found


def test_every_conclusion_follows_from_its_numbers() -> None:
    found = verdicts(*whole_study())
    assert found == {
        "in front of scale and shift, each channel of a batch has mean 0 and standard deviation 1": ["so"],
        "batch normalisation takes fewer steps to the same loss": ["so", "so"],
        "batch normalisation generalises better": ["so", "so"],
        "batch normalisation regularises: the gap is smaller": ["left open"],
        "batch normalisation is more tolerant of the learning rate": ["so", "so"],
        "batch normalisation works at higher learning rates": ["so"],
        next(phrase for phrase in found if phrase.startswith("from batch")): [None],
        "ghost batches make large batches generalise better": ["left open"],
        "with batch normalisation the result depends less on the order of the training data": ["not so"],
        "batch normalisation makes a model more robust to noise": ["so"],
        "batch normalisation reduces internal covariate shift: what layers receive drifts less": ["so"],
        "batch normalisation does not reduce internal covariate shift as gradients see it": ["so", "so"],
        "large batches make internal covariate shift larger": ["not so", "not so"],
        "batch normalisation fails on batches of one example": ["so"],
    }


def test_one_seed_leaves_all_comparisons_open() -> None:
    found = verdicts(*whole_study(seeds=(0,)))
    decided = {phrase for phrase, words in found.items() if set(words) & {"so", "not so"}}
    assert decided == {
        "in front of scale and shift, each channel of a batch has mean 0 and standard deviation 1",
        "with batch normalisation the result depends less on the order of the training data",
        "batch normalisation fails on batches of one example",
    }


def test_every_finding_names_runs_that_are_there() -> None:
    study, runs = whole_study()
    ids = {run.id for run in runs}
    assert all(set(f.runs) <= ids and f.source for f in conclude(study, runs))


def test_batches_of_one_that_can_be_trained_on_are_judged_by_what_comes_of_them() -> None:
    runs = [run_of(one_example(NONE), 1, 0.1, seed, [8.0, 1.0 + seed / 10]) for seed in (0, 1)]
    runs += [run_of(one_example(BEFORE), 1, 0.1, seed, [8.0, 6.0 + seed / 9]) for seed in (0, 1)]
    phrase = "batch normalisation fails on batches of one example"
    assert verdicts(study_of(runs, refused={}), runs)[phrase] == ["so"]
    runs[-1] = run_of(one_example(BEFORE), 1, 0.1, 1, [8.0, 6.0], diverged=True)
    assert verdicts(study_of(runs, refused={}), runs)[phrase] == ["so"]


def test_the_page_shows_every_part_and_what_is_missing() -> None:
    study, runs = whole_study()
    page = draw(study_contents(study, runs, sections(study, runs)))
    for name in ("norm-best", "norm-curves", "norm-rates-10", "norm-orders", "norm-noise", "norm-drift", "norm-shift"):
        assert f'<figure id="{name}">' in page
    assert "one value a channel" in page
    bare = study_of(runs[:1])
    names = [section.name for section in sections(bare, runs[:1])]
    assert names == ["published", "normalisation", "tolerance", "orders", "robustness", "shift", "definition"]
    assert conclude(bare, runs[:1]) == ()


def test_a_model_that_cannot_be_configured_is_said() -> None:
    runs = [run_of("", 10, 0.1, 0, [8.0, 4.0])]
    study = study_of(runs, **{NORMALISED: {"not_applicable": "no activation that is a module"}})
    assert "no activation that is a module" in conclude(study, runs)[0].statement
    assert [section.name for section in sections(study, runs)] == ["published"]
