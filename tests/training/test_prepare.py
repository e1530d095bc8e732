"""The preparation: what it measures for whom, what it keeps, and what it refuses before anything is timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import TargetError, UsageError
from batchscope.store.records import HardwareProfile, Target
from batchscope.store.runs import Store
from batchscope.tasks.workload import Workload
from batchscope.training.prepare import Wanted, check_task, prepare


class Line:
    """Counts its steps of training and its evaluations."""

    def __init__(self, *, norm: bool = False) -> None:
        self.norm, self.losses, self.evaluations = norm, 0, 0

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)) if self.norm else nn.Linear(3, 1)

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(60, 3, generator=generator)
        return TensorDataset(x, x.sum(1, keepdim=True))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.losses += 1
        return (model(batch[0]) - batch[1]).square().mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self.evaluations += 1
        return {"val_loss": 1.0}


SIZES = Wanted(budget_s=4.0, batch_sizes=(4, 16), timing_s=0.2)
PROFILE = HardwareProfile(name="card", step_time_s=((1, 0.1), (64, 0.2)))


@pytest.mark.parametrize(
    ("wanted", "timed"),
    [
        (SIZES, [4, 16]),
        (Wanted(budget_s=1.0), None),
        (Wanted(budget_s=1.0, profile=PROFILE), [1, 64]),
    ],
    ids=["batch sizes", "bench", "profile"],
)
def test_what_was_measured_is_kept_and_not_measured_again(
    tmp_path: Path, wanted: Wanted, timed: list[int] | None
) -> None:
    task = Line()
    with Store(tmp_path, {}) as store:
        first = prepare(Workload(task), wanted, store=store)
        assert (tmp_path / "bench.json").exists()
        assert (tmp_path / "timing.json").exists()
        preflight = Line()
        check_task(Workload(preflight), wanted)
        task.losses = task.evaluations = 0
        again = prepare(Workload(task), wanted, store=store)
    assert (task.losses, task.evaluations) == (preflight.losses, preflight.evaluations), (
        "only the preflight is repeated"
    )
    assert (again.bench, again.timing) == (first.bench, first.timing)
    sizes = [size for size, _ in first.bench.profile.step_time_s]
    assert sizes == timed if timed else sizes[0] == 1
    assert first.timing.step_s > 0
    assert first.step_time.of_batch(16) > 0


def test_memory_is_read_at_batch_sizes_unless_it_is_not_wanted() -> None:
    peaks = prepare(Workload(Line()), SIZES).bench.profile.peak_memory_bytes
    assert [size for size, _ in peaks] == [4, 16]
    assert peaks[0][1] < peaks[1][1]
    without = Wanted(budget_s=4.0, batch_sizes=(4, 16), timing_s=0.2, memory=False)
    assert prepare(Workload(Line()), without).bench.profile.peak_memory_bytes == ()


def test_the_evaluation_is_timed_with_all_that_is_measured_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(Line):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            now[0] += 0.01
            return super().loss(model, batch)

        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            now[0] += 2.0
            return super().evaluate(model)

    def measure(model: nn.Module) -> None:
        now[0] += 3.0

    workload = Workload(Slow())
    monkeypatch.setattr(type(workload.device), "clock", lambda self: now[0])
    assert prepare(workload, SIZES).timing.evaluation_s == pytest.approx(2.0)
    assert prepare(workload, SIZES, at_evaluation=measure).timing.evaluation_s == pytest.approx(5.0)


@pytest.mark.parametrize("seconds", [0.02, 2.0])
def test_an_evaluation_has_the_price_of_that_of_the_averaged_weights_too(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Also where it is cheap and timed anew."""
    now = [0.0]

    class Averaged(Line):
        ema_decay = 0.9

        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            now[0] += 0.01
            return super().loss(model, batch)

        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            now[0] += seconds
            return super().evaluate(model)

    workload = Workload(Averaged())
    monkeypatch.setattr(type(workload.device), "clock", lambda self: now[0])
    prepared = prepare(workload, SIZES)
    assert prepared.timing.evaluation_s == prepared.preflight.evaluation_s == pytest.approx(2 * seconds)


@pytest.mark.parametrize(
    ("wanted", "norm", "error", "message"),
    [
        (Wanted(budget_s=1.0, batch_sizes=(4, 61)), False, UsageError, "61 is larger than the training set of 60"),
        (Wanted(budget_s=1.0, batch_sizes=(1, 4)), True, UsageError, "a batch of 1 example cannot be trained on"),
        (Wanted(budget_s=1.0, target=Target(metric="f1", value=1, mode="max")), False, TargetError, "f1"),
        (Wanted(budget_s=1.0, lr=-1.0), False, UsageError, "the learning rate is -1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_timed(
    tmp_path: Path, wanted: Wanted, norm: bool, error: type[Exception], message: str
) -> None:
    with Store(tmp_path, {}) as store, pytest.raises(error, match=message):
        prepare(Workload(Line(norm=norm)), wanted, store=store)
    assert not (tmp_path / "bench.json").exists()


def test_a_folder_is_loaded_as_its_first_command_did(tmp_path: Path) -> None:
    class OneByOne(Line):
        def train_data(self) -> Any:
            x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
            return [(row, row.sum(0, keepdim=True)) for row in x]

    first, second, own = Workload(OneByOne()), Workload(OneByOne()), Workload(OneByOne())
    first.loader_workers = 1
    with Store(tmp_path, {"task": "line"}) as store:
        prepare(first, SIZES, store=store)
        prepare(second, SIZES, store=store)
        assert (second.loader_workers, own.loader_workers) == (1, 0)
        own.task.loader_options = {"num_workers": 0}  # type: ignore[attr-defined]
        said = Workload(own.task)
        prepare(said, SIZES, store=store)
        assert said.loader_workers == 0
