"""The milestone on the way to a target, in closed form; and stored runs, seen as far as a request asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.fits.targets import milestone_of
from batchscope.store.codec import encode
from batchscope.store.records import Row, RunConfig, RunResult, RunStatus, Target
from batchscope.store.runs import Store, StoredRun
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training
from batchscope.training.replay import at_step, seen
from batchscope.training.stopping import PauseRule, StallRule, StepLimitRule


def begun(value: float | None, metric: str = "val_loss") -> list[Row]:
    return [{"kind": "noise", "step": 0}, {"kind": "evaluation", "step": 0, "metrics": {metric: value}}]


def loss(value: float) -> Target:
    return Target(metric="val_loss", value=value, mode="min")


def score(value: float) -> Target:
    return Target(metric="val_loss", value=value, mode="max")


@pytest.mark.parametrize(
    ("start", "target", "expected"),
    [
        (2.0, loss(0.1), 0.1 * 20**0.3),
        (0.1, score(0.9), 1 - 0.1 * 9**0.3),
        (-3.0, score(0.5), 1 - 0.5 * 8**0.3),
        (2.0, loss(0.0), 0.1 * 2.0),  # no zero to measure from
        (2.0, loss(-8.0), -8.0 + 0.1 * 10.0),
        (10.0, score(30.0), 30.0 - 0.1 * 20.0),  # a score in per cent
        (0.2, score(1.0), 1.0 - 0.1 * 0.8),
    ],
)
def test_the_milestone_in_closed_form(start: float, target: Target, expected: float) -> None:
    found = milestone_of(begun(start), target)
    assert found is not None
    assert found.value == pytest.approx(expected)
    assert (found.metric, found.mode) == (target.metric, target.mode)


@given(start=st.integers(-(10**6), 10**6), value=st.integers(-(10**6), 10**6), smaller=st.booleans())
def test_the_milestone_lies_on_the_way(start: float, value: float, smaller: bool) -> None:
    start, value = start / 1000, value / 1000
    target = loss(value) if smaller else score(value)
    found = milestone_of(begun(start), target)
    if target.met_by(start):
        assert found is None
    else:
        assert found is not None
        assert found.met_by(value)
        assert min(start, value) < found.value < max(start, value)


@pytest.mark.parametrize("rows", [begun(None), begun(math.inf), begun(1.0, "other"), begun(0.05), []])
def test_no_milestone_where_the_start_is_not_known_or_meets_the_target(rows: list[Row]) -> None:
    assert milestone_of(rows, loss(0.1)) is None


class Valley:
    """Loss ½ w², which full gradient steps shrink by (1 - lr)² each."""

    def model(self) -> nn.Module:
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(model.weight, 2.0)
        return model

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.ones(16, 1, dtype=torch.float64))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return 0.5 * model(batch[0]).square().mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        value = 0.5 * float(next(model.parameters()).detach().square().sum())
        return {"val_loss": value, "undefined": math.nan}


CONFIG = RunConfig(task="valley", batch_size=4, micro_batch_size=4, lr=0.05, max_steps=500, target=loss(0.01))


class Made:
    """A run in a store that is paused where its rules say, and goes on."""

    def __init__(self, folder: Path, config: RunConfig = CONFIG) -> None:
        self.store, self.config = Store(folder, {}), config
        self.training: Training | None = None

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def advance(self, *rules: Any) -> StoredRun:
        writer = self.store.start(self.config) if self.training is None else self.store.go_on(self.config)
        self.training = self.training or Training(Workload(Valley()), self.config, on_row=writer.append)
        return writer.finish(self.training.advance(rules, writer.append))


def same(run: StoredRun, other: StoredRun) -> bool:
    """Equal as written, where NaN is equal to itself, but for hash and size of a file that has grown, and the seals."""

    def as_written(result: RunResult | None) -> Any:
        assert result is not None
        return encode(replace(result, rows_sha256="", rows_bytes=None, made_for=""))

    return (run.id, run.config, run.rows) == (other.id, other.config, other.rows) and as_written(
        run.result
    ) == as_written(other.result)


def paused_at(run: StoredRun, milestone: Target, limit: int | None = None) -> StoredRun:
    """The run as far as a milestone or a limit."""
    limits = [StepLimitRule(steps=limit)] if limit is not None else []
    view = seen(run, run.config, pauses=[PauseRule(milestone=milestone), *limits])
    assert view is not None
    return view


@pytest.mark.parametrize("target", [loss(0.01), None])
def test_a_run_that_went_on_is_seen_as_it_was_at_its_milestone(tmp_path: Path, target: Target | None) -> None:
    milestone = loss(0.3)
    with Made(tmp_path, replace(CONFIG, target=target, max_steps=90)) as made:
        paused = made.advance(PauseRule(milestone=milestone))
        whole = made.advance()
        stored = made.store.finished(made.config)
    assert paused.result is not None
    assert whole.result is not None
    assert (paused.result.status, whole.result.steps > 1.5 * paused.result.steps) == (RunStatus.PAUSED, True)
    assert stored is not None
    for run in (whole, stored):
        assert same(paused_at(run, milestone), paused)
    assert same(paused_at(paused, milestone), paused)


def test_a_run_with_a_limit_in_steps_is_seen_at_whichever_came_first(tmp_path: Path) -> None:
    with Made(tmp_path) as made:
        early = made.advance(StepLimitRule(steps=7), PauseRule(milestone=loss(0.3)))
        paused = made.advance(PauseRule(milestone=loss(0.3)))
        whole = made.advance()
    assert early.result is not None
    assert early.result.steps == 7
    assert same(paused_at(whole, loss(0.3), limit=7), early)
    assert same(paused_at(whole, loss(0.3), limit=10_000), paused)


def test_a_run_that_ended_before_its_milestone_or_in_that_evaluation_is_what_it_is(tmp_path: Path) -> None:
    with Made(tmp_path) as made:
        run = made.advance()
    assert same(paused_at(run, loss(0.0)), run)  # never passed
    assert same(paused_at(run, loss(0.01)), run)  # passed with the target
    late = paused_at(run, loss(float(run.rows[-2]["metrics"]["val_loss"])))
    assert late.result is not None
    assert late.result.status is RunStatus.PAUSED


def test_an_easier_target_is_answered_as_if_the_run_had_been_made_for_it(tmp_path: Path) -> None:
    easier = replace(CONFIG, target=loss(0.2))
    with Made(tmp_path / "hard") as made:
        hard = made.advance()
    with Made(tmp_path / "easy", easier) as made:
        easy = made.advance()
    view = seen(hard, easier)
    assert view is not None
    assert view.result is not None
    assert easy.result is not None
    assert view.result.status is RunStatus.REACHED
    clock: dict[str, Any] = {"device_seconds": 0.0, "rows_sha256": "", "rows_bytes": None, "made_for": ""}
    assert encode(replace(view.result, **clock)) == encode(replace(easy.result, **clock))
    assert view.config == easier
    assert seen(easy, CONFIG) is None, "a harder one is not"


def test_a_shorter_run_is_seen_at_its_last_evaluation_and_a_longer_one_is_asked_for(tmp_path: Path) -> None:
    config = replace(CONFIG, target=None, max_steps=90)
    with Made(tmp_path, config) as made:
        run = made.advance()
    shorter = seen(run, replace(config, max_steps=50))
    assert shorter is not None
    assert shorter.result is not None
    assert shorter.result.status is RunStatus.OUT_OF_STEPS
    assert 45 <= shorter.result.steps <= 50
    assert seen(run, replace(config, max_steps=200)) is None


def test_rules_are_asked_again_from_where_the_request_found_the_run(tmp_path: Path) -> None:
    config = replace(CONFIG, target=None, lr=2.0, max_steps=200)  # the weight swings from 2 to -2, for ever
    with Made(tmp_path, config) as made:
        run = made.advance()
    rule = StallRule(patience=0.5, least_steps=10, least_steps_at_the_start=10)
    stalled = seen(run, config, rules=[rule])
    assert stalled is not None
    assert stalled.result is not None
    assert stalled.result.status is RunStatus.STALLED
    later = seen(run, config, rules=[rule], since=stalled.result.steps)
    assert later is not None
    assert later.result is not None
    assert later.result.steps > stalled.result.steps
    again = at_step(run, config, stalled.result.steps, RunStatus.STALLED)
    assert again is not None
    assert same(again, stalled)
    assert at_step(run, config, 199, RunStatus.STALLED) is None, "there was no evaluation"
