"""An `evaluate` that fails, changes the model or returns something else in the middle of a run: one message each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope.errors import TaskError
from batchscope.store.records import Row
from batchscope.tasks.model_state import difference, fingerprint
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

from .recursions import Regression, config


class Late(Regression):
    """A sound task whose `evaluate` has a fault from its third call on."""

    def __init__(self, fault: Callable[[nn.Module], Mapping[str, float] | None], calls: int = 3) -> None:
        super().__init__()
        self.fault, self.calls, self.made = fault, calls, 0

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self.made += 1
        return (self.fault(model) if self.made >= self.calls else None) or super().evaluate(model)


def fails(model: nn.Module) -> None:
    raise OSError("the share /data is gone")


def moves_weights(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.99)


def moves_statistics(model: nn.Module) -> None:
    model.register_buffer("seen", torch.tensor(1))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            fails,
            r"evaluate\(model\) raised OSError: the share /data is gone .*evaluation 3 of the run with batch size 8 "
            r"and learning rate 0.1, after step 2; finished runs are kept",
        ),
        (moves_weights, r"evaluate\(model\) changed the model \(.*weight\); it was evaluation 3 .* must only read"),
        (moves_statistics, r"evaluate\(model\) changed the model \(seen\); it was evaluation 3 "),
        (lambda model: {"val_acc": 0.5}, r"returned val_acc, and val_loss before; it was evaluation 3 "),
        (lambda model: {"val_loss": 0.5, "f1": 1.0}, r"returned f1, val_loss, and val_loss before"),
    ],
)
def test_a_fault_that_comes_later_is_told_with_its_place(fault: Callable[[nn.Module], Any], message: str) -> None:
    rows: list[Row] = []
    with pytest.raises(TaskError, match=message):
        train(Workload(Late(fault)), config(max_steps=20), on_row=rows.append)
    assert [row["step"] for row in rows] == [0, 1]


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 7, 12])
def test_a_model_that_is_changed_from_some_call_on_is_soon_noticed(calls: int) -> None:
    task = Late(moves_weights, calls)
    with pytest.raises(TaskError, match="changed the model"):
        train(Workload(task), config(max_steps=200))
    assert task.made <= 2 * calls


def test_whatever_evaluate_does_with_the_modes_they_are_put_back() -> None:
    """One that leaves a part in evaluation mode, or the whole model in training mode."""

    class Modes(Late):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            if torch.is_grad_enabled():
                assert all(module.training for module in model.modules())
            return super().loss(model, batch)

    for fault in (lambda model: next(model.children(), model).eval() and None, lambda model: model.train() and None):
        train(Workload(Modes(fault, 1)), config(max_steps=5))


def test_the_seconds_of_evaluations_add_up_in_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(Regression):
        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            now[0] += 2.0
            return super().evaluate(model)

    workload, rows = Workload(Slow()), list[Row]()
    monkeypatch.setattr(type(workload.device), "clock", lambda self: now[0])
    result = train(workload, config(max_steps=4), on_row=rows.append)
    assert [row["evaluation_seconds"] for row in rows] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert result.device_seconds == 0.0


def test_a_model_is_known_by_its_parameters_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = fingerprint(model)
    assert difference(before, fingerprint(model)) is None
    model.train()(torch.randn(4, 3))
    assert difference(before, fingerprint(model)) == "1.running_mean"
    assert fingerprint(nn.Flatten()) == {}


def test_runs_that_begin_with_the_same_weights_share_the_evaluation_before_their_first_step() -> None:
    """Of one seed and one number of threads; of another seed it is made."""
    task = Late(lambda model: None)
    workload = Workload(task)
    made: list[int] = []
    firsts: list[Mapping[str, float]] = []
    for lr, seed in ((0.1, 0), (0.05, 0), (0.1, 1)):
        rows: list[Row] = []
        before = task.made
        train(workload, config(lr=lr, seed=seed, max_steps=2), on_row=rows.append)
        made.append(task.made - before - sum(row["step"] > 0 for row in rows))
        firsts.append(rows[0]["metrics"])
    assert made == [1, 0, 1]
    assert firsts[0] == firsts[1] != firsts[2]
