"""Equal updates on a bowl whose descent has a closed form: equal distances, and what is read off at equal examples."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.laboratory.readings import DISTANCE, readings
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.fixed_steps import STUDY
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from .bowl import CURVATURES, Bowl, shrunk

LR = 0.1
STEPS = 40


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 20),
        "lrs": (LR,),
        "seeds": (0, 1, 2),
        "length": Length(unit="steps", amount=STEPS),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **changes: Any) -> Study:
    return study(task or Bowl(), asked(**changes), out=tmp_path / "out", named=STUDY)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def distance(steps: float) -> float:
    """Every layer starts at norm √10."""
    return math.sqrt(sum(10 * (1 - (1 - LR * h) ** steps) ** 2 for h in CURVATURES.values()))


def height(steps: float) -> float:
    return sum(0.5 * h * 10 * shrunk(LR, 1, name) ** (2 * steps) for name, h in CURVATURES.items())


def test_distances_at_equal_steps_are_equal_and_on_the_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path)
    for run in read_runs(tmp_path / "out"):
        assert readings(found, run, DISTANCE)[-1].value == pytest.approx(distance(STEPS))
    far = finding_on(found, "how far the weights travel is limited whatever the batch size")
    assert far.verdict == "so"
    assert far.effect is not None
    assert far.effect.value == pytest.approx(1.0)
    # at as many examples as 40 steps of 4, a batch of 20 has made 8 steps
    expected = distance(8) / distance(STEPS)
    assert f"after equally many examples, {expected:.3f}"[:-1] in far.statement


def test_a_batch_whose_gradient_is_larger_travels_further(tmp_path: Path) -> None:
    found = made(tmp_path, Bowl(power=2))
    assert finding_on(found, "how far the weights travel").verdict == "not so"


def test_quality_at_equal_steps_is_equal(tmp_path: Path) -> None:
    found = made(tmp_path)
    good = finding_on(found, "with as many, it is as good as a small one")
    assert good.verdict == "so"
    assert good.effect is not None
    assert good.effect.value == pytest.approx(0.0, abs=1e-12)
    shown = re.search(r"by ([\d.]+) \S+ after equally many examples", good.statement)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(height(8) - height(STEPS), rel=0.01)


def test_one_seed_leaves_it_open(tmp_path: Path) -> None:
    found = made(tmp_path, seeds=(0,))
    assert [f.verdict for f in found.findings if f.verdict] == ["left open"] * 2


def test_the_page_shows_both_ways_to_be_equal(tmp_path: Path) -> None:
    made(tmp_path)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("published", "equal", "courses", "equal-distance", "equal-outcome"):
        assert f'id="{name}"' in page
    assert "after 160 examples" in page


def test_a_batch_size_that_diverges_is_said_and_left_out(tmp_path: Path) -> None:
    class Explodes(Bowl):
        def loss(self, model: Any, batch: Any) -> Any:
            large = model.training and len(batch[0]) == 20
            return super().loss(model, batch) * (1e200 if large else 1.0)

    found = made(tmp_path, Explodes(), batch_sizes=(4, 10, 20), seeds=(0,))
    assert "from batch size 4 to 10" in finding_on(found, "with as many").statement
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "At batch size 20 a run diverged" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": (4,)}, "--batch-sizes has only 4; give at least two"),
        ({"lrs": (0.1, 0.2)}, "--lrs has 2; give one, for example --lrs 0.1"),
        ({"length": Length(unit="epochs", amount=3)}, "a run lasts 3 epochs; give --steps"),
    ],
)
def test_what_makes_no_sense_is_one_message(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(tmp_path, **changes)
