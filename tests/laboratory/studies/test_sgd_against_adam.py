"""Both optimizers on a bowl, where either's course can be worked out number by number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.sgd_against_adam import STUDY
from batchscope.laboratory.study import study
from batchscope.laboratory.travel import ALL, travel_of
from batchscope.store.runs import StoredRun, read_runs

from .bowl import CURVATURES, EXAMPLES, Bowl, shrunk


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (10,),
        "lrs": (0.01, 0.1),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=3),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **changes: Any) -> Study:
    return study(task or Bowl(layers=("first",)), asked(**changes), out=tmp_path / "out", named=STUDY)


def finding_on(found: Study, words: str, how: str = "each at its best learning rate") -> Finding:
    return next(f for f in found.findings if words in f.statement and how in f.statement)


def by_adam(start: list[float], lr: float, steps: int) -> list[float]:
    """Kingma and Ba 2015, algorithm 1, one weight after another."""
    ended: list[float] = []
    for weight in start:
        first = second = 0.0
        for step in range(1, steps + 1):
            slope = CURVATURES["first"] * weight
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            weight -= lr * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        ended.append(weight)
    return ended


def of(runs: tuple[StoredRun, ...], variant: str, lr: float) -> list[StoredRun]:
    return [run for run in runs if run.config.settings["variant"] == variant and run.config.lr == lr]


def test_either_optimizer_is_the_plain_one_whatever_the_task_has(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    assert {(s.variant, s.lr) for s in found.summary} == {("sgd", 0.01), ("sgd", 0.1), ("adam", 0.001), ("adam", 0.01)}
    steps = 3 * EXAMPLES // 10
    for run in of(runs, "sgd", 0.1):
        radius = travel_of(run, ALL, "norm")[0]
        assert travel_of(run)[steps] == pytest.approx(radius * (1 - shrunk(0.1, steps, "first")))
    for run in of(runs, "adam", 0.01):
        model = Bowl(layers=("first",)).seeded(run.config.seed)
        start = [value for p in model.parameters() for value in p.detach().flatten().tolist()]
        ended = by_adam(start, 0.01, steps)
        assert travel_of(run)[steps] == pytest.approx(math.dist(start, ended), rel=1e-6)
        assert travel_of(run, ALL, "norm")[steps] == pytest.approx(math.hypot(*ended), rel=1e-6)


def test_what_is_published_is_decided_at_the_best_and_at_the_usual_rates(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    farther = finding_on(found, "Adam goes farther")
    ratio = {
        run.config.seed: travel_of(run)[12] / travel_of(other)[12]
        for run, other in zip(of(runs, "adam", 0.01), of(runs, "sgd", 0.1), strict=True)
    }
    assert farther.effect is not None
    assert farther.effect.value == pytest.approx(math.exp(sum(math.log(r) for r in ratio.values()) / 3))
    assert farther.verdict == "not so"  # a bowl's slope carries SGD farther
    assert finding_on(found, "Adam goes farther", "at torch's default").verdict == "not so"
    assert finding_on(found, "SGD keeps the norm").verdict == "not so"
    worse = finding_on(found, "Adam ends at a lower test accuracy")  # the bowl has a test loss: lower is better
    assert "test_loss changes" in worse.statement
    assert worse.verdict == "so"
    ids = {run.id for run in (*of(runs, "sgd", 0.1), *of(runs, "adam", 0.01))}
    assert set(farther.runs) == ids


def test_without_the_usual_rates_there_are_only_the_best(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(0.2,), seeds=(0,))
    own = [f for f in found.findings if f.verdict is not None]
    assert [f.verdict for f in own] == ["left open"] * 4
    assert not any("at its best learning rate" in f.statement for f in own), "one learning rate was tried"
    assert '<section id="by-rate">' not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_page_has_a_part_for_each_batch_size_and_nothing_is_made_twice(tmp_path: Path) -> None:
    found = made(tmp_path, batch_sizes=(10, 20), seeds=(0, 1))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for section in ("published", "optimizers", "optimizers-2", "by-rate"):
        assert f'<section id="{section}">' in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").glob("*/result.json")}
    assert made(tmp_path, batch_sizes=(10, 20), seeds=(0, 1)).answer() == found.answer()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_optimizer_that_diverges_leaves_nothing_to_compare(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(1e30,), seeds=(0,))
    assert not any(f.verdict for f in found.findings)
    assert "without diverging" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
