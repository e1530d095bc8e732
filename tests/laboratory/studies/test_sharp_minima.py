"""Sharpness at the end of a descent in a bowl, where the largest loss in a box is at a corner that is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from batchscope.errors import UsageError
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.sharp_minima import STUDY
from batchscope.laboratory.studies.sharp_minima.conclusions import sharpness_findings
from batchscope.laboratory.studies.sharp_minima.sharpness import (
    BOXES,
    EIGENVALUE,
    KESKAR,
    RELATIVE,
    TRACE,
    late_change,
    measurement_name,
    ratio_of,
    size_pairs,
    starts_of,
    value_of_run,
)
from batchscope.laboratory.study import study
from batchscope.store.not_applicable import NotApplicable
from batchscope.store.runs import StoredRun, read_runs

from .bowl import CURVATURES, Bowl, shrunk

H = CURVATURES["first"]


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 20),
        "lrs": (0.1,),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=10),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **changes: Any) -> Study:
    budget = {"budget_s": changes.pop("budget_s")} if "budget_s" in changes else {}
    return study(task or Bowl(layers=("first",)), asked(**changes), out=tmp_path / "out", named=STUDY, **budget)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def last_weights(tmp_path: Path, run: StoredRun) -> Tensor:
    state = torch.load(tmp_path / "out" / "runs" / run.id / "weights-last.pt", weights_only=True)
    return torch.cat([value.flatten() for value in state.values()])


# --- against closed forms -----------------------------------------------------------------------------------------


def test_boxes_and_curvature_are_those_of_the_bowl(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    assert len(runs) == 4
    for run in runs:
        w = last_weights(tmp_path, run).abs()
        height = 0.5 * H * float((w**2).sum())
        for measure in BOXES:
            assert measure.eps is not None
            half = measure.eps * (w + (measure.kind == "keskar"))
            corner = 0.5 * H * float(((w + half) ** 2).sum())
            expected = 100 * (corner - height) / (1 + height)
            assert value_of_run(found, run.id, measure) == pytest.approx(expected, rel=1e-6), measure.label
            assert max(value for _, value in starts_of(found, run.id, measure)) == value_of_run(found, run.id, measure)
        assert value_of_run(found, run.id, EIGENVALUE) == pytest.approx(H)
        assert value_of_run(found, run.id, TRACE) == pytest.approx(8 * H)


def test_the_ratio_over_seeds_is_that_of_the_two_batches(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(0.05, 0.1))
    first, second = size_pairs(found)
    assert (first.how, second.how) == ("at learning rate 0.05", "at learning rate 0.1, the best of both")
    small, large = (0.5 * H * 10 * shrunk(0.05, steps, "first") ** 2 for steps in (100, 20))
    expected = (large / (1 + large)) / (small / (1 + small))  # the relative box's φ goes as f ÷ (1 + f)
    ratio = ratio_of(found, first, RELATIVE)
    assert ratio.value == pytest.approx(expected, rel=1e-6)
    sharper = finding_on(found, "a large batch ends in a sharper minimum")
    assert sharper.verdict == "so"
    assert "at learning rate 0.05" in sharper.statement
    assert "the two boxes agree" in finding_on(found, "so many times as sharp").statement
    edge = finding_on(found, "stays below 2 over the learning rate")
    assert edge.verdict == "so"
    assert edge.effect is not None
    assert edge.effect.value == pytest.approx(H * 0.1 / 2)
    worse = finding_on(found, "a large batch ends at a lower test accuracy")
    assert worse.verdict == "so"
    assert "test_loss at the end changes" in worse.statement


def test_a_loss_that_still_falls_is_no_minimum(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    for run in runs:
        in_last_tenth = 40 // run.config.batch_size
        assert late_change(found, run) == pytest.approx(shrunk(0.1, in_last_tenth, "first") ** 2 - 1)
    assert "whose weights are no minima yet" in finding_on(found, "training loss that was reached").statement
    settled = made(tmp_path / "settled", lrs=(0.001,), length=Length(unit="epochs", amount=2))
    assert "had all but stopped falling" in finding_on(settled, "training loss that was reached").statement


# --- from measurements by hand ------------------------------------------------------------------------------------


def by_hand(found: Study, keskar: dict[int, list[float]], relative: dict[int, list[float]]) -> Study:
    """The same study with these φ by batch size, one a seed."""
    stored: dict[str, Any] = {}
    for row in found.rows:
        for kind, eps, values in (("keskar", KESKAR.eps, keskar), ("relative", RELATIVE.eps, relative)):
            value = values[row.batch_size][row.seed]
            starts = [{"start": "at the weights", "value": value}]
            stored[f"sharpness-{kind}-{row.run}"] = {"boxes": [{"eps": eps, "value": value, "starts": starts}]}
    return replace(found, measurements=stored)


@pytest.mark.parametrize(
    ("keskar", "relative", "sharper", "verdict"),
    [
        ((2.0, 2.1), (2.0, 2.1), "so", "the two boxes agree"),
        ((0.5, 0.52), (0.4, 0.42), "not so", "the two boxes agree"),
        ((2.0, 2.1), (0.4, 0.42), "so", "the two boxes disagree: which is sharper depends on the scale"),
        ((0.1, 9.0), (2.0, 2.1), "left open", "leaves open which is sharper"),
    ],
)
def test_two_boxes_decide_together(
    tmp_path: Path, keskar: tuple[float, float], relative: tuple[float, float], sharper: str, verdict: str
) -> None:
    made_once = made(tmp_path, length=Length(unit="epochs", amount=1))
    one = [1.0, 1.01]
    found = by_hand(made_once, {4: one, 20: list(keskar)}, {4: one, 20: list(relative)})
    statements = [f.statement for f in sharpness_findings(found, read_runs(tmp_path / "out"))]
    assert any("a sharper minimum" in text and sharper in text for text in statements)
    assert any(verdict in text for text in statements)


# --- stopped, and what there is not -------------------------------------------------------------------------------


def test_measurements_are_kept_one_by_one_and_never_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **how: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("batchscope.probes.hessian.measure_curvature", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path)
    (first,) = read_runs(tmp_path / "out")
    stored = {path.stem for path in (tmp_path / "out").glob("measured-sharpness-*")}
    assert stored == {f"measured-{measurement_name(kind, first.id)}" for kind in ("keskar", "relative")}
    whole = made(tmp_path)
    assert len([name for name in whole.measurements if name.startswith("sharpness-")]) == 4 * 3
    with monkeypatch.context() as patched:
        for name in ("sharpness.measure_box_sharpness", "hessian.measure_curvature"):
            patched.setattr(f"batchscope.probes.{name}", pytest.fail)
        assert made(tmp_path).answer() == whole.answer()


def test_a_budget_that_ends_measures_nothing_more(tmp_path: Path) -> None:
    made(tmp_path)
    for path in (tmp_path / "out").glob("measured-sharpness-curvature-*"):
        path.unlink()
    cut = made(tmp_path, budget_s=1e-6)
    assert not cut.complete
    assert not any(name.startswith("sharpness-curvature") for name in cut.measurements)
    assert made(tmp_path).complete


def test_without_the_extra_the_page_names_it_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = NotApplicable(reason='curvlinops is not installed; install the extra: pip install "batchscope[hessian]"')
    monkeypatch.setattr("batchscope.probes.hessian._curvlinops", lambda: absent)
    found = made(tmp_path)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not measured: curvlinops is not installed; install the extra" in page
    assert '<section id="edge">' not in page
    assert '<figure id="sharpness-keskar">' in page
    assert found.complete
    assert "the two boxes agree" in finding_on(found, "so many times as sharp").statement


class Noisy(Bowl):
    """Its loss is another one each time."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        return super().loss(model, batch) * (1 + 0.1 * torch.rand((), dtype=torch.float64))


def test_a_loss_that_is_not_repeatable_is_said(tmp_path: Path) -> None:
    found = made(tmp_path, Noisy(layers=("first",)))
    reasons = {value["not_applicable"] for name, value in found.measurements.items() if name.startswith("sharpness-")}
    assert reasons
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(f"Not measured: {reason}"[:50] in page for reason in reasons)
    assert not any("sharper minimum" in f.statement for f in found.findings)
    json.dumps(found.answer(), allow_nan=False)


def test_one_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sharp_minima compares batch sizes"):
        made(tmp_path, batch_sizes=(4,))


def test_the_page_shows_every_part(tmp_path: Path) -> None:
    made(tmp_path)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for section in ("published", "sharpness", "ratios", "sharpness-and-gap", "edge", "reached"):
        assert f'<section id="{section}">' in page
    for words in ("a small φ bounds nothing", "Dinh et al. (2017) object", "averages their losses"):
        assert words in page
    made(tmp_path / "lost", lrs=(1e30,), seeds=(0,))
    assert "No run was measured" in (tmp_path / "lost" / "out" / "report.html").read_text(encoding="utf-8")
