"""How many evaluations in a row confirm a target: settled by the first run that is there, and asked of every run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscope.errors import UsageError
from batchscope.fits.curves import steps_to_target
from batchscope.search.confirmation import aimed, confirmation_in_words, resolved, settled
from batchscope.search.question import Question, Within
from batchscope.store.records import Metric, Target
from batchscope.store.runs import StoredRun, read_runs
from batchscope.testing.runs import evaluation, stored_run

from .folders import Cli, without_clock
from .searches import search

ONCE = Target.parse("val_accuracy>=0.84")
STEPS = [0, *np.unique(np.geomspace(1, 3000, 110).round()).astype(int).tolist()]


def noisy_run(level: float = 0.79, noise: float = 0.05, seed: int = 0) -> StoredRun:
    """A run whose accuracy approaches a level, with noise of a standard deviation about it; its start is 0.1."""
    draws = np.random.default_rng(seed).normal(0.0, noise, len(STEPS))
    smooth = [level - (level - 0.1) * (1 + step / 5) ** -0.7 for step in STEPS]
    values = [value + (draw if step else 0.0) for step, value, draw in zip(STEPS, smooth, draws, strict=True)]
    rows = [evaluation(step, {"val_accuracy": value}) for step, value in zip(STEPS, values, strict=True)]
    return stored_run(32, 0.1, rows, target=ONCE)


def state(**question: Any) -> Any:
    asked = resolved(Question(target=ONCE, **question), None)
    return search([], question=asked, target=asked.target)


def test_noisy_evaluations_take_three_in_a_row_and_smooth_ones_one() -> None:
    noisy, smooth = settled(state(), noisy_run()), settled(state(), noisy_run(level=0.9, noise=0.001))
    assert (noisy["target"].confirm, smooth["target"].confirm) == (3, 1)
    assert noisy["confirmation"].spread.value == pytest.approx(0.05, rel=0.5)
    assert noisy["confirmation"].spread.unit == "val_accuracy"


def test_what_the_user_says_counts() -> None:
    assert settled(state(confirm=2), noisy_run())["target"].confirm == 2
    assert settled(state(confirm=1), noisy_run())["target"].confirm == 1
    own = search([], question=Question(target=replace(ONCE, confirm=5)), target=replace(ONCE, confirm=5))
    assert settled(own, noisy_run())["target"].confirm == 5


def test_only_the_first_run_at_the_target_settles_it() -> None:
    short = noisy_run(level=0.5)
    assert settled(state(), short) == {}
    assert settled(state(), short, at_its_end=True)["target"].confirm == 3
    once_settled = replace(state(), **settled(state(), noisy_run()))
    assert settled(once_settled, noisy_run(noise=0.001)) == {}
    assert settled(replace(state(), target=None), noisy_run()) == {}


def test_it_follows_from_what_came_before_the_target() -> None:
    """So it is the same when the run has gone on since."""
    run = noisy_run()
    first = steps_to_target(run.rows, ONCE)
    assert first is not None
    end = next(step for step in STEPS if step >= first)
    cut = replace(run, rows=tuple(row for row in run.rows if row["step"] <= end))
    assert steps_to_target(cut.rows, ONCE) == first
    assert settled(state(), cut) == settled(state(), run)


def test_a_configuration_takes_the_number_that_holds_now() -> None:
    now, config = replace(state(), target=replace(ONCE, confirm=3)), noisy_run().config
    assert aimed(now, config).target == replace(ONCE, confirm=3)
    assert aimed(now, replace(config, target=None)).target is None


def test_it_is_told_where_it_is_more_than_one() -> None:
    settled_by_noise = replace(state(), **settled(state(), noisy_run()))
    said = confirmation_in_words(settled_by_noise)
    assert "of 3 evaluations in a row at 0.84 or beyond (--confirm 1 takes the first at it)" in said
    assert "with a standard deviation of" in said
    given = replace(state(confirm=2), **settled(state(confirm=2), noisy_run()))
    assert "(as --confirm says)" in confirmation_in_words(given)
    assert confirmation_in_words(replace(state(confirm=1), **settled(state(confirm=1), noisy_run()))) == ""
    assert confirmation_in_words(state()) == ""


def test_questions_that_contradict_themselves() -> None:
    for asked, message in (
        ({"confirm": 0}, r"--confirm is 0; it must be at least 1"),
        ({"confirm": 2, "within": Within(amount=3, unit="epochs")}, r"--confirm 2 .*--within 3 epochs has none"),
        (
            {"target": ONCE, "metric": Metric.parse("val_loss")},
            r"--metric val_loss:min and --target val_accuracy>=0.84",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            Question(**asked)
    assert Question(target=ONCE, metric=ONCE.judged_by).judged_by == ONCE.judged_by


JUMPING = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Jumping:
    \"\"\"A line through noise; its val_quality jumps with the last digits of the weights.\"\"\"
    trained = 0
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.scales = torch.tensor([1.0, 0.6, 0.3, 0.2])
        self.x = torch.randn(1000, 4, generator=generator) * self.scales
        self.y = (self.x / self.scales).sum(1, keepdim=True) + 0.5 * torch.randn(1000, 1, generator=generator)
    def model(self):
        return nn.Linear(4, 1)
    def train_data(self):
        return TensorDataset(self.x[:800], self.y[:800])
    def loss(self, model, batch):
        Jumping.trained += torch.is_grad_enabled()
        return F.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        jump = torch.sin(1e5 * model.weight.sum())
        return {"val_quality": 1.0 - F.mse_loss(model(self.x[800:]), self.y[800:]) / 4.0 + 0.06 * jump}
"""
FIND = "find jumping.py:Jumping --hardware machine.json --trainings 0.2 --evaluation-share 100% --json"


def test_every_run_that_reached_the_target_has_it_confirmed(cli: Cli, profile: Path) -> None:
    Path("jumping.py").write_text(JUMPING, encoding="utf-8")
    sys.modules.pop("jumping", None)
    ended = cli(f"{FIND} --target val_quality>=0.9 --out out")
    assert ended.status == 0, ended.err
    plan = ended.answer
    target = Target(**plan["target"])
    assert target.confirm == 3
    assert 0.02 < plan["measured"]["evaluation_spread"]["value"] < 0.08
    assert any("of 3 evaluations in a row" in note for note in plan["notes"])
    reached = [run for run in read_runs("out") if run.result and run.result.steps_to_target is not None]
    assert reached
    for run in reached:
        values = [row["metrics"]["val_quality"] for row in run.rows if row["kind"] == "evaluation"]
        assert all(map(target.met_by, values[-3:]))
        assert run.result is not None
        assert run.result.steps_to_target == steps_to_target(run.rows, target)
    level = plan["verified"]["ends_at"]
    assert level["low"] < level["value"] < level["high"]

    trained = sys.modules["jumping"].Jumping.trained
    again = cli(f"{FIND} --target val_quality>=0.9 --out out")
    assert without_clock(again.answer) == without_clock(plan)
    assert sys.modules["jumping"].Jumping.trained - trained < 40  # the preflight and the range test at most

    once = cli(f"{FIND} --target val_quality>=0.9 --confirm 1 --out out").answer
    assert once["target"]["confirm"] == 1
    assert once["verified"]["steps"] < plan["verified"]["steps"]
    assert json.loads(Path("out/plan.json").read_text())["target"]["confirm"] == 1


def test_a_metric_of_unknown_direction_is_asked_for_and_the_advice_works(cli: Cli, profile: Path) -> None:
    Path("jumping.py").write_text(JUMPING, encoding="utf-8")
    sys.modules.pop("jumping", None)
    refused = cli(f"{FIND} --out asked")
    assert refused.status == 2
    assert "--metric val_quality:max or --metric val_quality:min" in refused.answer["message"]
    assert sys.modules["jumping"].Jumping.trained < 40
    found = cli(f"{FIND} --metric val_quality:max --out asked")
    assert found.status == 0, found.err
    assert (found.answer["target"]["metric"], found.answer["target"]["mode"]) == ("val_quality", "max")
    assert all(run.config.metric == Metric.parse("val_quality:max") for run in read_runs("asked"))
