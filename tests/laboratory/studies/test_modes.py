"""Three modes of one optimizer: first passages of a scripted loss, the spread of gradients of a linear model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.modes import STUDY, arms
from batchscope.laboratory.studies.modes.figures import straightness_of
from batchscope.laboratory.studies.modes.gradient_spread import spread_of
from batchscope.laboratory.studies.modes.passages import passages_of
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from ..cut_off import no_time_for_runs
from .scripted_task import At, Scripted

EXAMPLES = 40
EPOCHS = 10


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (1, 8),
        "lrs": (0.1,),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=EPOCHS),
        "repeats": 4,
    }
    return StudyQuestion(**{**values, **changes})


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


# --- the common target, on a script -------------------------------------------------------------------------------


EPOCHS_TO_HALVE = {1: 0.5, 8: 1.0, 40: 20.0}


def halving(at: At) -> Mapping[str, float]:
    """The loss halves every so many epochs of the batch size; the seed stretches the time."""
    epochs_to_halve = EPOCHS_TO_HALVE.get(at.batch_size, 1.0) * (1 + 0.05 * math.tanh(at.draw))
    return {"val_loss": 2.0 ** (-at.seen / EXAMPLES / epochs_to_halve)}


def scripted(tmp_path: Path, **changes: Any) -> Study:
    task = Scripted(halving, examples=EXAMPLES, step_time_s=lambda size: 0.01 * (1 + size / 8))
    return study(task, asked(**changes), out=tmp_path / "out", named=STUDY, device=task.device)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """One study for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("halved")
    return scripted(folder), folder / "out"


def test_the_full_batch_is_added_and_gets_more_epochs() -> None:
    lengths = {(arm.batch_size, arm.lr): arm.length for arm in arms(asked(lrs=(0.1, 1.0)), EXAMPLES)}
    assert {size for size, _ in lengths} == {1, 8, 40}
    steps = {size: lengths[size, 1.0] for size in (1, 8, 40)}
    assert steps == {size: Length(unit="steps", amount=n) for size, n in ((1, 400), (8, 50), (40, 200))}
    assert {arm.batch_size for arm in arms(asked(batch_sizes=(8, 40)), EXAMPLES)} == {8, 40}


def test_times_to_the_common_target_are_those_of_the_script(halved: tuple[Study, Path]) -> None:
    found, out = halved
    passages = passages_of(found, read_runs(out))
    assert passages is not None
    worst = max(row.values["best_val_loss"] or 0.0 for row in found.rows)
    assert passages.target == worst
    halvings = -math.log2(worst)
    for size, epochs_to_halve in EPOCHS_TO_HALVE.items():
        epochs, steps = passages.mean("epoch", size).value, passages.mean("step", size).value
        assert epochs == pytest.approx(epochs_to_halve * halvings, rel=0.1)
        assert epochs is not None
        assert steps is not None
        assert steps == pytest.approx(epochs * EXAMPLES / size)
        assert passages.mean("seconds", size).value == pytest.approx(steps * 0.01 * (1 + size / 8), rel=1e-3)
    ratio = passages.ratio("epoch", 40, 8)
    assert ratio.value == pytest.approx(20.0, rel=0.02)
    assert ratio.low is not None
    assert ratio.low > 15


def test_the_full_batch_takes_more_epochs_and_more_time(halved: tuple[Study, Path]) -> None:
    found, _ = halved
    assert finding_on(found, "converges more slowly").verdict == "so"
    # 20 epochs of one step of 6 units, against 1 epoch of 5 steps of 2 units
    longer = finding_on(found, "a shorter total time")
    assert longer.verdict == "so"
    assert longer.effect is not None
    assert longer.effect.value == pytest.approx(12.0, rel=0.02)


def test_a_mini_batch_takes_fewer_steps_at_little_more_cost(halved: tuple[Study, Path]) -> None:
    fewer = finding_on(halved[0], "fewer steps than single examples")
    assert fewer.effect is not None
    assert fewer.effect.value == pytest.approx(1.0 * 5 / (0.5 * 40), rel=0.1)
    assert "a step takes 1.78" in fewer.statement  # 2 / 1.125
    assert fewer.verdict == "so"


def test_without_single_examples_what_is_about_them_is_left_out(tmp_path: Path) -> None:
    found = scripted(tmp_path, batch_sizes=(8,))
    own = [f.statement for f in found.findings if f.statement.startswith("published")]
    assert len(own) == 2
    assert not any("single examples" in statement for statement in own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": (40,)}, "has only 40, all examples; give a smaller one too"),
        ({"length": Length(unit="steps", amount=9)}, "a run lasts 9 steps; give --epochs"),
    ],
)
def test_what_makes_no_sense_is_one_message(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scripted(tmp_path, **changes)


# --- gradients, on a linear model ---------------------------------------------------------------------------------


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class Regression:
    """Loss ½ (x·w − y)²: an example's gradient at w = 0 is −x y."""

    name = "regression"

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(3)
        self.x = torch.randn(EXAMPLES, 2, dtype=torch.float64, generator=draws)
        self.y = self.x.sum(1) + torch.randn(EXAMPLES, dtype=torch.float64, generator=draws)

    def model(self) -> nn.Module:
        return Line()

    def train_data(self) -> TensorDataset:
        return TensorDataset(self.x, self.y)

    def loss(self, model: Any, batch: Any) -> Tensor:
        x, y = batch
        return 0.5 * (x @ model.w - y).square().mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        with torch.no_grad():
            return {"val_loss": float(self.loss(model, (self.x, self.y)))}


def test_the_variance_of_the_gradient_falls_with_the_batch(tmp_path: Path) -> None:
    task = Regression()
    found = study(task, asked(repeats=400, seeds=(0, 1)), out=tmp_path / "out", named=STUDY)
    gradients = np.asarray(-task.x * task.y[:, None])
    mean = gradients.mean(0)
    trace = float(((gradients - mean) ** 2).sum(1).mean())
    spread = spread_of(found, "start")
    assert set(spread) == {1, 8}
    for size, one in spread.items():
        assert one.variance.value == pytest.approx(trace / size, rel=0.2)
        assert one.noise.value == pytest.approx(math.sqrt(trace / size) / np.linalg.norm(mean), rel=0.1)
    assert finding_on(found, "varies less than that of one example").verdict == "so"
    assert set(found.measurements) == {"gradients-start", "gradients-end"}


def test_measurements_are_kept_and_a_cut_study_makes_them_later(tmp_path: Path) -> None:
    with no_time_for_runs():
        cut = study(Regression(), asked(), out=tmp_path / "out", named=STUDY)
    assert not cut.complete
    assert not cut.measurements
    found = study(Regression(), asked(), out=tmp_path / "out", named=STUDY)
    path = tmp_path / "out" / "measured-gradients-end.json"
    before = path.stat().st_mtime_ns
    assert study(Regression(), asked(), out=tmp_path / "out", named=STUDY).answer() == found.answer()
    assert path.stat().st_mtime_ns == before
    json.dumps(found.answer(), allow_nan=False)


def test_the_full_batch_walks_straight_and_single_examples_do_not(tmp_path: Path) -> None:
    study(Regression(), asked(), out=tmp_path / "out", named=STUDY)
    straight = {run.config.batch_size: straightness_of(run) for run in read_runs(tmp_path / "out")}
    assert straight[40] == pytest.approx(1.0)
    assert (straight[1] or 1.0) < (straight[8] or 1.0) < 0.9
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("paths", "target", "variance", "noise", "straightness", "to-epoch", "to-seconds"):
        assert f'id="{name}"' in page


def test_where_examples_depend_on_one_another_the_page_says_why(tmp_path: Path) -> None:
    class Normalised(Regression):
        def model(self) -> nn.Module:
            line = Line()
            line.norm = nn.BatchNorm1d(2, dtype=torch.float64)
            return line

        def loss(self, model: Any, batch: Any) -> Tensor:
            x, y = batch
            return 0.5 * (model.norm(x) @ model.w - y).square().mean()

    found = study(Normalised(), asked(batch_sizes=(4, 8), seeds=(0, 1)), out=tmp_path / "out", named=STUDY)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The spread of gradients is not measured here: norm is batch normalisation" in page
    assert finding_on(found, "varies less than that of one example").verdict == "left open"
