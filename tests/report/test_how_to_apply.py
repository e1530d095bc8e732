"""The program on the page runs as it stands, and trains as it says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from batchscope.report.program import last_step, program
from batchscope.report.sections.how_to_apply import build
from batchscope.store.records import Plan, Recipe, RunEvaluations

from . import plans

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs write the weights where they are run."""
    monkeypatch.chdir(tmp_path)


class Trained:
    """What the program did, seen from the outside."""

    def __init__(self, plan: Plan, recipe: Recipe, losses: list[float] | None = None) -> None:
        torch.manual_seed(0)
        x = torch.randn(130, 3)
        data = torch.utils.data.TensorDataset(x, x @ torch.tensor([1.0, -2.0, 0.5]))
        self.model = torch.nn.Linear(3, 1)
        self.batches: list[int] = []
        self.rates: list[float] = []
        self.evaluations = 0
        values = iter(losses) if losses is not None else None

        def make_optimizer(parameters: Any, lr: float) -> Any:
            self.optimizer = torch.optim.AdamW(parameters, lr=lr)
            self.optimizer.register_step_pre_hook(lambda o, *_: self.rates.append(o.param_groups[0]["lr"]))
            return self.optimizer

        def loss(model: Any, batch: Any) -> Any:
            self.batches.append(len(batch[0]))
            return ((model(batch[0])[:, 0] - batch[1]) ** 2).mean()

        def evaluate(model: Any) -> dict[str, float]:
            self.evaluations += 1
            return {"val_loss": next(values) if values is not None else 1.0 / self.evaluations}

        self.names: dict[str, Any] = {
            "model": self.model,
            "train_data": data,
            "make_optimizer": make_optimizer,
            "loss": loss,
            "evaluate": evaluate,
        }
        exec(compile(program(plan, recipe), "page", "exec"), self.names)


def plan_for(recipe: Recipe, value: float = 0.01) -> Plan:
    target = dataclasses.replace(plans.TARGET, value=value)
    return dataclasses.replace(plans.ok(), recipe=recipe, target=target, predicted=None, verified=None)


def small(**changes: Any) -> Recipe:
    recipe = dataclasses.replace(plans.recipe(32), steps=12, steps_per_epoch=4.0, epochs=3.0)
    return dataclasses.replace(recipe, **changes)


def test_plain_training_makes_the_steps_it_says() -> None:
    recipe = small()
    done = Trained(plan_for(recipe), recipe)
    assert done.names["step"] == 12
    assert done.batches == [32] * 12


def test_accumulation_counts_across_epochs() -> None:
    """130 // 16 = 8 micro-batches an epoch, 3 a step: what is left of an epoch belongs to the next step."""
    recipe = small(batch_size=48, micro_batch_size=16, grad_accum_steps=3)
    done = Trained(plan_for(recipe), recipe)
    assert len(done.rates) == 12
    assert done.batches == [16] * 36


def test_it_stops_at_the_target() -> None:
    recipe = small()
    done = Trained(plan_for(recipe, value=0.4), recipe, losses=[0.5, 0.39, 0.1])
    assert (done.names["step"], done.names["value"]) == (8, 0.39)


def test_it_stops_when_patience_ends() -> None:
    recipe = small(steps=400, early_stop=dataclasses.replace(small().early_stop, patience=2.0))
    done = Trained(plan_for(recipe), recipe, losses=[0.5, *[0.6] * 50])
    every, patience = done.names["EVERY"], done.names["PATIENCE"]
    assert patience == 8
    assert done.names["step"] == every + patience


def test_schedule_warm_up_and_changes_reach_the_optimizer() -> None:
    recipe = small(schedule="cosine", warmup_steps=4, optimizer_changes={"betas": [0.8, 0.9]}, lr=0.1)
    done = Trained(plan_for(recipe), recipe)
    assert done.optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert done.rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert done.rates[8] == pytest.approx(0.05)


def test_a_linear_schedule_falls_to_zero() -> None:
    recipe = small(schedule="linear", lr=0.12)
    assert Trained(plan_for(recipe), recipe).rates == pytest.approx([0.12 - 0.01 * i for i in range(12)])


def test_a_constant_learning_rate_may_run_to_the_end_of_the_interval() -> None:
    plan = plans.ok()
    assert plan.recipe is not None
    assert last_step(dataclasses.replace(plan, verified=None), plan.recipe) == 202
    decaying = dataclasses.replace(plan.recipe, schedule="linear")
    assert last_step(plan, decaying) == plan.recipe.steps


def test_a_constant_learning_rate_has_room_beyond_the_verified_run_and_for_what_confirms_it() -> None:
    plan, recipe = plans.ok(), plans.ok().recipe
    assert recipe is not None
    assert plan.verified is not None
    once = math.ceil(1.5 * plan.verified.steps)
    assert last_step(plan, recipe) == once
    evaluations = RunEvaluations(number=20, every_steps=7, every_examples=7 * recipe.batch_size)
    confirmed = dataclasses.replace(plan.target or plans.TARGET, confirm=3)
    plan = dataclasses.replace(plan, target=confirmed, evaluations=evaluations)
    assert last_step(plan, recipe) == once + 2 * 7


@pytest.mark.parametrize(("losses", "said"), [([0.5, 0.39], "target reached at step 8"), ([0.5] * 9, "not reached")])
def test_it_says_whether_the_target_was_reached(losses: list[float], said: str, capsys: Any) -> None:
    recipe = small()
    Trained(plan_for(recipe, value=0.4), recipe, losses=losses)
    assert capsys.readouterr().out.splitlines()[-1].endswith(said)


@pytest.mark.parametrize("within", ["100 epochs", None])
def test_a_decaying_learning_rate_is_not_ended_by_patience(within: str | None) -> None:
    recipe = small(steps=400, schedule="wsd", early_stop=dataclasses.replace(small().early_stop, patience=2.0))
    plan = dataclasses.replace(plan_for(recipe), within=within)
    assert Trained(plan, recipe, losses=[0.5] * 400).names["step"] == 400


def test_several_devices_are_explained() -> None:
    recipe = dataclasses.replace(plans.recipe(128, micro=16), grad_accum_steps=2, world_size=4)
    plan = dataclasses.replace(plans.ok(), recipe=recipe)
    text = str(build(plan, ()))
    assert "4 processes" in text
    assert "DistributedSampler" in text
    assert "16 * 2 * 4" in program(plan, recipe)


def test_within_a_length_the_program_trains_on_after_the_best_value_of_the_search() -> None:
    recipe = small()
    plan = dataclasses.replace(plan_for(recipe, value=0.5), within="3 epochs")
    assert last_step(dataclasses.replace(plan, predicted=plans.predicted(32)), recipe) == recipe.steps
    assert len(Trained(plan, recipe).batches) == recipe.steps
    assert len(Trained(dataclasses.replace(plan, within=None), recipe).batches) < recipe.steps
