"""Whole searches under schedules and warm-ups: the recipe states them, and a plain loop repeats its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from batchscope.fits.schedules import lr_factor
from batchscope.hardware.random_state import seed_everything
from batchscope.store.records import RunStatus
from batchscope.store.runs import StoredRun, read_runs
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

from .folders import DENSE, Cli, answer, curves_of, files_of, without_clock

LINE = '''
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Line:
    """A line through noise, directions of unequal scale."""
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        scales = torch.tensor([1.0, 0.5, 0.25, 0.15])
        self.x = torch.randn(1000, 4, generator=generator) * scales
        self.y = (self.x / scales).sum(1, keepdim=True) + 0.7 * torch.randn(1000, 1, generator=generator)
    def model(self):
        return nn.Linear(4, 1)
    def train_data(self):
        return TensorDataset(self.x[:800], self.y[:800])
    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return {"val_loss": F.mse_loss(model(self.x[800:]), self.y[800:])}

class Own(Line):
    def schedule(self, progress):
        return min(1.0, 0.1 + 5 * progress) * (1 - 0.9 * progress)

class Valley(Line):
    """A quartic valley: its curvature is hundreds of times larger at the start than where the target lies."""
    def model(self):
        model = nn.Linear(4, 1, bias=False)
        nn.init.constant_(model.weight, 4.0)
        return model
    def loss(self, model, batch):
        return (0.25 * model.weight ** 4).sum() + 0.01 * (model(batch[0]) ** 2).mean()
    def evaluate(self, model):
        return {"val_loss": (0.25 * model.weight ** 4).sum()}
'''
FIND = f"--hardware machine.json --trainings 0.5 --out out {DENSE}"
TARGET = "--target val_loss<=0.6"
DATA_SEED = 1_000_003


@pytest.fixture(autouse=True)
def line(cli: Cli, profile: Path) -> None:
    Path("line.py").write_text(LINE, encoding="utf-8")


def recipe_run(plan: Any) -> StoredRun:
    """The run that stands behind a recipe."""
    names = ("batch_size", "lr", "schedule", "warmup_steps", "final_lr")
    recipe = plan["recipe"]
    found = [run for run in read_runs("out") if all(getattr(run.config, n) == recipe[n] for n in names)]
    if recipe["schedule"] != "constant":
        found = [run for run in found if run.config.max_steps == recipe["steps"]]
    (run,) = found
    return run


def trained_by_hand(spec: str, plan: Any, steps: int) -> dict[str, torch.Tensor]:
    """The weights that a plain loop with the recipe of a plan comes to after so many steps."""
    recipe, task = plan["recipe"], load_task(spec).task
    seed_everything(0)
    model = task.model()
    optimizer = task.optimizer(model.parameters(), recipe["lr"])
    total, own = recipe["steps"], getattr(task, "schedule", None)

    def factor(step: int) -> float:
        if recipe["schedule"] == "task":
            assert own is not None
            return own(step / total)
        warmup, final_lr = recipe["warmup_steps"], recipe["final_lr"]
        return lr_factor(recipe["schedule"], step, total, warmup=warmup, final_lr=final_lr)

    schedule = LambdaLR(optimizer, factor)
    batches = Workload(task).micro_batches(recipe["batch_size"], 1, DATA_SEED)
    for _ in range(steps):
        (batch,) = next(batches)
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        schedule.step()
    return model.state_dict()


def same_weights(spec: str, plan: Any) -> None:
    result = recipe_run(plan).result
    assert result is not None
    kept = torch.load("kept.pt", weights_only=True)
    for name, weight in trained_by_hand(spec, plan, result.best_step).items():
        torch.testing.assert_close(kept[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "words", "stated"),
    [
        ("Line", "--warmup 20steps", {"schedule": "constant", "warmup_steps": 20, "final_lr": 0.0}),
        ("Line", "--schedule wsd --warmup 10% --final-lr 5%", {"schedule": "wsd", "final_lr": 0.05}),
        ("Line", "--schedule linear --warmup 640examples", {"schedule": "linear", "final_lr": 0.0}),
        ("Own", "", {"schedule": "task", "warmup_steps": 0, "final_lr": 0.0}),
    ],
)
def test_a_target_is_reached_by_the_recipe_as_it_is_stated(cli: Cli, task: str, words: str, stated: Any) -> None:
    plan = answer(cli, f"find line.py:{task} {FIND} {TARGET} {words} --keep-model kept.pt")
    recipe = plan["recipe"]
    assert recipe.items() >= stated.items()
    run = recipe_run(plan)
    assert run.result is not None
    assert run.result.status is RunStatus.REACHED
    assert plan["verified"]["steps"] == run.result.steps_to_target
    if "10%" in words:
        assert recipe["warmup_steps"] == max(1, round(0.1 * recipe["steps"]))
    if "640examples" in words:
        assert recipe["warmup_steps"] == -(-640 // recipe["batch_size"])
    same_weights(f"line.py:{task}", plan)


@pytest.mark.parametrize(
    ("task", "words", "stated"),
    [
        ("Line", "--warmup 5%", {"schedule": "constant"}),
        ("Line", "--schedule cosine --warmup 10steps --final-lr 10%", {"schedule": "cosine", "warmup_steps": 10}),
        ("Own", "", {"schedule": "task", "warmup_steps": 0}),
    ],
)
def test_within_a_length_every_run_has_the_schedule(cli: Cli, task: str, words: str, stated: Any) -> None:
    plan = answer(cli, f"find line.py:{task} {FIND} --within 4epochs {words} --keep-model kept.pt")
    assert plan["recipe"].items() >= stated.items()
    runs = read_runs("out")
    assert {run.config.schedule for run in runs} == {stated["schedule"]}
    for config in (run.config for run in runs):
        expected = {"--warmup 5%": max(1, round(0.05 * config.max_steps)), "": 0}.get(words, 10)
        assert config.warmup_steps == expected < config.max_steps
    said = [item["statement"] for item in plan["evidence"] if item["statement"].startswith("every run had")]
    assert len(said) == 1
    assert "over its length of 4 epochs" in said[0]


def test_every_run_and_the_recipe_have_the_warm_up(cli: Cli) -> None:
    plan = answer(cli, f"find line.py:Valley {FIND} --target val_loss<=0.001 --warmup 50steps --keep-model kept.pt")
    run = recipe_run(plan)
    assert run.config.warmup_steps == plan["recipe"]["warmup_steps"] == 50
    assert {run.config.warmup_steps for run in read_runs("out")} == {50}
    same_weights("line.py:Valley", plan)
    workload = Workload(load_task("line.py:Valley").task)
    assert train(workload, run.config).status is RunStatus.REACHED


@pytest.mark.slow
def test_another_schedule_is_another_question_that_reuses_the_runs_at_a_constant_learning_rate(cli: Cli) -> None:
    find = f"find line.py:Line {FIND} {TARGET}"
    first = answer(cli, find)
    before = curves_of("out")
    for words in ("--schedule wsd", "--schedule wsd --final-lr 10%", "--schedule wsd --warmup 5%"):
        other = answer(cli, f"{find} {words}")
        assert other["recipe"]["schedule"] == "wsd"
        assert curves_of("out").items() >= before.items()
        made = [run for run in read_runs("out") if run.id not in before]
        assert made
        assert {run.config.purpose for run in made} == {"horizon"}
        before, files = curves_of("out"), files_of("out")
        assert without_clock(answer(cli, f"{find} {words}")) == without_clock(other)
        assert files_of("out") == files
    assert without_clock(answer(cli, find)) == without_clock(first)
    warmed = answer(cli, f"{find} --warmup 5steps")
    assert warmed["recipe"]["warmup_steps"] == 5
    asked = [json.loads(path.read_text()) for path in sorted(Path("out/questions").glob("*/question.json"))]
    assert [q["asked"]["schedule"] for q in asked] == ["constant", "wsd", "wsd", "wsd", "constant"]
    assert asked[3]["asked"]["warmup"] == {"amount": 0.05, "unit": "share"}


def test_terminal_and_page_state_the_schedule_and_what_was_compared(cli: Cli) -> None:
    ended = cli(f"find line.py:Line {FIND} {TARGET} --schedule wsd --warmup 8steps --final-lr 10%")
    assert ended.status == 0, ended.err
    said = " ".join(ended.out.split())
    assert "constant for four fifths, then falling to 10 % of it (wsd) after 8 steps of linear warm-up" in said
    assert "compared at a constant learning rate, after a warm-up of 8 steps" in said
    page = Path("out/report.html").read_text(encoding="utf-8").replace("\xa0", " ")
    assert "then falling to 10 % of it (wsd)" in page
    assert "were taken to be best with the schedule wsd down to 10 % of the learning rate as well" in page
