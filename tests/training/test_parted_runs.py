"""A run in two parts: it comes to what it would have come to in one go, and leaves the device meanwhile."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from batchscope.probes.noise_scale import probes_of
from batchscope.store.records import Row, RunStatus
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.workload import Workload
from batchscope.testing import without_clock
from batchscope.training.loop import Training, train
from batchscope.training.stopping import PauseRule, StepLimitRule

from .recursions import (
    Quadratic,
    Regression,
    config,
    loss_at,
    target,
)


class Collated(Regression):
    """The same through a loader: examples are dictionaries, put together by a function of the task's own."""

    def train_data(self) -> Any:
        x, y = self.data.tensors
        return [{"x": row, "y": target} for row, target in zip(x, y, strict=True)]

    def collate(self, items: list[dict[str, Tensor]]) -> tuple[Tensor, ...]:
        return tuple(torch.stack([item[key] for item in items]) for key in ("x", "y"))


PARTED = {
    "dropout, AdamW": (lambda: Regression(dropout=0.3), {"lr": 0.01}),
    "a loader with a collate": (lambda: Collated(dropout=0.3), {"lr": 0.01}),
    "batch normalisation": (lambda: digits(model="cnn", norm="batch"), {"lr": 0.05, "max_steps": 15}),
    "a schedule, parts, the noise scale": (
        lambda: Regression(dropout=0.3),
        {
            "lr": 0.01,
            "batch_size": 16,
            "grad_accum_steps": 2,
            "schedule": "cosine",
            "warmup_steps": 9,
            "noise_scale_groups": 2,
        },
    ),
}


@pytest.mark.parametrize("case", PARTED)
def test_a_run_in_two_parts_is_the_run_in_one_go(case: str) -> None:
    """Weights, rows and result, bit by bit, whatever was trained and drawn in between."""
    make, changes = PARTED[case]
    made = config(**{"seed": 5, "evaluation_growth": 1.2, **changes})
    one_go: list[Row] = []
    whole = Training(Workload(make()), made, probes=probes_of(made), on_row=one_go.append)
    expected = whole.advance()
    workload, rows, more = Workload(make()), list[Row](), list[Row]()
    parted = Training(workload, made, probes=probes_of(made), on_row=rows.append)
    first = parted.advance([StepLimitRule(steps=8)])
    assert first.status is RunStatus.PAUSED
    assert 8 <= first.steps < expected.steps
    torch.rand(7)
    train(workload, config(seed=6, lr=0.01, max_steps=4))
    parted.to_host()
    parted.to_device()
    found = parted.advance((), more.append)
    assert without_clock([*rows, *more]) == without_clock(one_go)
    assert all(row["step"] > 8 or row["kind"] == "noise" for row in more)
    assert replace(found, device_seconds=0.0) == replace(expected, device_seconds=0.0)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(parted.model.state_dict()[name], value), name


def test_the_seconds_of_both_parts_are_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    workload = Workload(Regression())
    monkeypatch.setattr(type(workload.device), "clock", lambda self: float(next(ticks)))
    training = Training(workload, config(max_steps=20))
    parts = [training.advance([StepLimitRule(steps=5)]).device_seconds, training.advance().device_seconds]
    assert 0 < parts[0] < parts[1]


def test_a_run_at_its_end_is_not_paused() -> None:
    """Else it would go on beyond what it was given."""
    reached_late = PauseRule(milestone=target(loss_at([1.0] * 40) * 1.0000001))
    result = train(Workload(Quadratic()), config(), stop_rules=[reached_late, StepLimitRule(steps=40)])
    assert (result.status, result.steps) == (RunStatus.OUT_OF_STEPS, 40)


class Elsewhere(Tensor):
    """A tensor that says it is on an accelerator; `to("cpu")` gives a plain one."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)

    def to(self, *where: Any, **_: Any) -> Tensor:  # type: ignore[override]
        return self.detach().as_subclass(Tensor)


def test_a_paused_run_leaves_the_device_and_returns_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(Workload(Regression()), config(lr=0.01))
    training.advance([StepLimitRule(steps=3)])
    states = list(training._update.optimizer.state.values())
    before = [{key: value.clone() for key, value in state.items()} for state in states]
    for state in states:
        state["exp_avg"] = state["exp_avg"].as_subclass(Elsewhere)
    moved: list[str] = []
    monkeypatch.setattr(training.workload, "device", SimpleNamespace(torch_device=torch.device("cuda", 0)))
    monkeypatch.setattr(training.model, "to", lambda where: moved.append(str(where)))
    monkeypatch.setattr(Tensor, "to", lambda self, where: moved.append(str(where)) or self.as_subclass(Elsewhere))
    training.to_host()
    assert moved == ["cpu"]
    assert not any(isinstance(value, Elsewhere) for state in states for value in state.values())
    training.to_device()
    assert moved == ["cpu", "cuda:0", *["cuda:0"] * len(states)]
    for state, old in zip(states, before, strict=True):
        assert isinstance(state["exp_avg"], Elsewhere)
        for key, value in old.items():
            assert torch.equal(state[key].as_subclass(Tensor), value)
