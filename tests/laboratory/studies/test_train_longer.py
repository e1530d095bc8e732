"""More epochs for large batches, on a bowl whose descent has a closed form: equal ends, and when they are reached."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscope.errors import UsageError
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.train_longer import STUDY
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from .bowl import CURVATURES, EXAMPLES, Bowl, shrunk

LR = 0.1
EPOCHS = 3


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 8, 20),
        "lrs": (LR,),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=EPOCHS),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **changes: Any) -> Study:
    return study(task or Bowl(), asked(**changes), out=tmp_path / "out", named=STUDY)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def distance(steps: float) -> float:
    return math.sqrt(sum(10 * (1 - (1 - LR * h) ** steps) ** 2 for h in CURVATURES.values()))


def height(steps: float) -> float:
    return sum(0.5 * h * 10 * shrunk(LR, 1, name) ** (2 * steps) for name, h in CURVATURES.items())


def passage(values: Any, target: float, *, rising: bool) -> float:
    """In epochs of a batch of 20, evaluated once an epoch, which is 2 steps; straight between evaluations."""
    x = np.arange(0, EPOCHS * 5 + 1)
    y = np.array([values(2 * epoch) for epoch in x])
    fine = np.linspace(0, x[-1], 100_001)
    course = np.interp(fine, x, y)
    return float(fine[np.argmax(course >= target if rising else course <= target)])


def shown(statement: str, words: str) -> float:
    found = re.search(rf"{words} at epoch ([\d.]+)", statement)
    assert found is not None, statement
    return float(found[1])


def test_every_larger_batch_is_trained_for_as_many_steps(tmp_path: Path) -> None:
    found = made(tmp_path)
    steps = {(row.variant, row.batch_size): row.steps for row in found.rows}
    assert steps == {("", 4): 30, ("", 8): 15, ("", 20): 6, ("trained longer", 8): 30, ("trained longer", 20): 30}
    assert len(found.rows) == found.planned


def test_equal_updates_end_at_the_same_place(tmp_path: Path) -> None:
    found = made(tmp_path)
    good, far = finding_on(found, "as good as a small one"), finding_on(found, "as far from its initial weights")
    assert good.verdict == "so"
    assert far.verdict == "so"
    assert good.effect is not None
    assert good.effect.value == pytest.approx(0.0, abs=1e-12)
    assert far.effect is not None
    assert far.effect.value == pytest.approx(1.0)
    assert f"({distance(6) / distance(30):.3f}"[:-1] in far.statement
    assert "15 epochs (as many steps)" in far.statement


def test_the_passages_are_those_of_the_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path)
    good, far = finding_on(found, "as good as a small one"), finding_on(found, "as far from its initial weights")
    assert shown(good.statement, "as good") == pytest.approx(passage(height, 1.1 * height(30), rising=False), rel=0.01)
    assert shown(far.statement, "as far") == pytest.approx(passage(distance, 0.9 * distance(30), rising=True), rel=0.01)


def test_what_is_not_reached_is_said(tmp_path: Path) -> None:
    class Slower(Bowl):
        """A batch of 20 hardly moves."""

        def loss(self, model: Any, batch: Any) -> Any:
            return super().loss(model, batch) * (0.1 if model.training and len(batch[0]) == 20 else 1.0)

    found = made(tmp_path, Slower())
    far = finding_on(found, "as far from its initial weights")
    assert far.verdict == "not so"
    assert "not within 15 epochs" in far.statement
    assert finding_on(found, "as good as a small one").verdict == "not so"


def test_the_ratio_of_epochs_has_a_limit(tmp_path: Path) -> None:
    length = Length(unit="epochs", amount=1)
    found = made(tmp_path, Bowl(examples=80), batch_sizes=(1, 80), seeds=(0,), length=length)
    assert {row.epochs for row in found.rows} == {1.0, 64.0}
    assert "64 epochs (the most, 64 times as many)" in finding_on(found, "as good as a small one").statement


def test_the_page_has_the_published_numbers_and_the_courses(tmp_path: Path) -> None:
    found = made(tmp_path)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ('id="published"', 'id="longer"', "Hoffer et al. 2017", "0.861 (4,096)", "as good at epoch"):
        assert text in page
    before = {run.id for run in read_runs(tmp_path / "out")}
    assert made(tmp_path).answer() == found.answer()
    assert {run.id for run in read_runs(tmp_path / "out")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": (4,)}, "--batch-sizes has only 4; give at least two"),
        ({"lrs": (0.1, 0.2)}, "--lrs has 2; give one"),
        ({"length": Length(unit="steps", amount=3)}, "a run lasts 3 steps; give --epochs"),
    ],
)
def test_what_makes_no_sense_is_one_message(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert EXAMPLES == 40
    with pytest.raises(UsageError, match=message):
        made(tmp_path, **changes)
