"""The lines of a program follow from the task and the recipe; every program is clean, whatever the task has."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.fits.schedules import lr_factor
from batchscope.report.blocks import Code
from batchscope.report.program import program
from batchscope.report.sections.how_to_apply import build
from batchscope.store.codec import decode, encode
from batchscope.store.records import LibraryArguments, Plan, RunConfig, Target, TaskProgram
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload, mean_loss
from batchscope.training.loop import Training

from . import plans
from .test_how_to_apply import Trained, plan_for, small

TASK = TaskProgram(spec="mine.py:task", members=("evaluate",), loading="examples")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs write the weights where they are run."""
    monkeypatch.chdir(tmp_path)


def plan_of(task: TaskProgram, target: Target = plans.TARGET, **recipe: Any) -> Plan:
    changed = dataclasses.replace(plans.recipe(32), **recipe)
    return dataclasses.replace(plans.ok(), recipe=changed, target=target, program=task)


def text_of(task: TaskProgram = TASK, target: Target = plans.TARGET, **recipe: Any) -> str:
    plan = plan_of(task, target, **recipe)
    assert plan.recipe is not None
    return program(plan, plan.recipe)


def changed(**changes: Any) -> TaskProgram:
    return dataclasses.replace(TASK, **changes)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("final_lr", [0.0, 0.1])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_learning_rates_are_those_of_the_runs(schedule: str, warmup: int, final_lr: float) -> None:
    recipe = small(schedule=schedule, warmup_steps=warmup, final_lr=final_lr, lr=0.12)
    rates = Trained(plan_for(recipe), recipe).rates
    expected = [0.12 * lr_factor(schedule, step, 12, warmup=warmup, final_lr=final_lr) for step in range(12)]
    assert rates == pytest.approx(expected)


def test_the_tasks_own_schedule_is_asked_by_the_share_of_the_run() -> None:
    assert "LambdaLR(optimizer, lambda step: task.schedule(step / 40))" in text_of(schedule="task", steps=40)


def test_a_target_has_to_be_confirmed_so_often() -> None:
    recipe = small(steps=100)
    plan = plan_for(recipe)
    plan = dataclasses.replace(plan, target=dataclasses.replace(plan.target or plans.TARGET, value=0.4, confirm=2))
    done = Trained(plan, recipe, losses=[0.5, 0.39, 0.45, 0.4, 0.38, 0.1])
    assert (done.names["value"], done.evaluations) == (0.38, 5)


def test_gradients_of_float16_are_unscaled_before_they_are_clipped() -> None:
    text = text_of(changed(precision="float16", members=("evaluate", "before_update"), device="cuda"))
    order = ["scaler.scale(batch_loss).backward()", "scaler.unscale_(optimizer)", "task.before_update(model)"]
    order += ["scaler.step(optimizer)", "scaler.update()", "optimizer.zero_grad()"]
    assert sorted(order, key=text.index) == order
    assert 'torch.autocast("cuda", torch.float16)' in text
    assert 'model = task.model().to("cuda")' in text
    assert "task.loss(model, to_device(next(batches)))" in text


def test_generators_of_the_gpu_are_left_alone_as_well() -> None:
    """A sampler's seed is set on every device."""
    assert "torch.cuda.set_rng_state_all(of_gpus)" in text_of(changed(device="cuda:0"))
    assert "torch.cuda" not in text_of()


def test_a_metric_of_averaged_weights_is_measured_on_them() -> None:
    task = changed(ema_decay=0.99)
    text = text_of(task, Target(metric="test_ema_loss", value=0.1, mode="min"))
    assert 'value = task.evaluate(averaged.module)["test_loss"]' in text
    assert "copy.deepcopy(averaged.module.state_dict())" in text
    assert 'value = task.evaluate(model)["val_loss"]' in text_of(task)


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ("mine.py", ["from mine import task as make_task"]),
        ("mine.py:Own", ["from mine import Own as make_task"]),
        ("sub/dir/mine.py:Own", ["import sys", 'sys.path.insert(0, "sub/dir")', "from mine import Own as make_task"]),
        ("my-task.py:Own", ["import importlib", 'make_task = importlib.import_module("my-task").Own']),
        ("package.module:Own", ["from package.module import Own as make_task"]),
        ("package.module", ["from package.module import task as make_task"]),
        ("digits", ["from batchscope.tasks.builtin.digits import digits as make_task"]),
    ],
)
def test_the_task_is_imported_from_where_it_is(spec: str, lines: list[str]) -> None:
    program = text_of(changed(spec=spec)).splitlines()
    assert [line for line in lines if line not in program] == []
    assert "task = make_task()" in program


def test_a_task_made_in_python_leaves_one_line_to_fill_in() -> None:
    plan = plan_of(changed(spec=""))
    assert "from your_script import task  # fill in: where the task 'digits' is made" in program(plan, plans.recipe())
    assert "Fill in the line that imports the task" in str(build(plan, ()))


def test_the_page_is_rebuilt_with_the_same_program() -> None:
    task = changed(arguments={"hidden": "64"}, loader_options={"num_workers": 2}, ema_decay=0.9, tokens_per_example=7.5)
    plan = plan_of(task)
    again = decode(Plan, json.loads(json.dumps(encode(plan))))
    assert again == plan
    assert build(again, ()) == build(plan, ())


def test_settings_are_those_that_were_given() -> None:
    task = changed(
        arguments={"hidden": "64", "path": 'Path("data.npz")', "kind": "Kind.SMALL"},
        imports=("from mine import Kind", "from pathlib import Path"),
    )
    text = text_of(task)
    assert 'task = make_task(hidden=64, path=Path("data.npz"), kind=Kind.SMALL)' in text
    assert text.index("from pathlib") < text.index("import torch") < text.index("from mine import Kind")


def test_a_loader_has_what_the_task_says_and_what_was_chosen_for_it() -> None:
    workers = {"num_workers": 2, "persistent_workers": True}
    text = text_of(changed(loader_options=workers))
    assert "        num_workers=2,\n        persistent_workers=True,\n" in text
    assert 'if __name__ == "__main__":' in text
    own = changed(members=("evaluate", "loader_options"), loader_options={"num_workers": 1})
    assert '**{**task.loader_options, "num_workers": 1},' in text_of(own)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Dicts", {"members": ("evaluate", "collate"), "loss_at": '["loss"]', "device": "cpu:0"}),
        ("Dicts", {"members": ("collate",), "loss_at": '["loss"]', "held_back": 25, "device": "cpu:0"}),
        ("Tensors", {"loading": "tensors", "device": "cpu:0"}),
        ("Tensors", {"loading": "tensors", "members": (), "held_back": 25, "device": "cpu:0"}),
        ("Tensors", {"members": (), "held_back": 25}),
        ("Ordered", {"members": ("evaluate", "sampler"), "loading": "tensors"}),
        ("Ordered", {"members": ("sampler",), "held_back": 25}),
        ("Stream", {"loading": "stream", "device": "cpu:0"}),
        ("Tensors", {"loading": "tensors", "ema_decay": 0.5}),
        ("Lazy", {"lazy": True, "loading": "tensors", "members": (), "held_back": 25, "device": "cpu:0"}),
        ("Lazy", {"lazy": True, "ema_decay": 0.5}),
        ("Predicting", {"loading": "tensors", "ema_decay": 0.5}),
        ("Predicting", {"loading": "tensors", "ema_decay": 0.5, "precision": "float16"}),
        ("Groups", {"loading": "tensors", "precision": "float16", "members": ("evaluate", "before_update")}),
    ],
)
def test_it_trains(kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a device that the tensors have to be moved to, by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    task = changed(spec=f"kinds.py:{kind}", optimizer_takes_model=kind == "Groups", **changes)
    target = Target(metric="ema_val_loss" if task.ema_decay else "val_loss", value=0.0, mode="min")
    text = text_of(task, target, batch_size=32, micro_batch_size=16, grad_accum_steps=2, lr=0.1, steps=60)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "page", "exec"), names)
    assert names["step"] > 20
    assert names["best"] < 0.1
    assert names["weights"].keys() == names["task"].model().state_dict().keys()
    assert Path("best.pt").exists()


def test_tokens_that_are_held_back_weigh_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last chunk has longer sequences than the first."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    task = changed(spec="kinds.py:HeldBack", members=("collate", "loss_weight"), held_back=30)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text_of(task, batch_size=32, lr=0.1, steps=2), "page", "exec"), names)
    made, model = names["task"], names["model"]
    held_back: Any = [torch.tensor([1, 2])] * 1000 + [torch.tensor([8, 1] * 20)] * 100
    with torch.no_grad():
        found = names["evaluate"](model, made, held_back)["val_loss"]
    assert found == pytest.approx(
        mean_loss(model, made.loss, held_back, collate=made.collate, weight=lambda b: float(made.loss_weight(b)))
    )


def test_accumulated_steps_draw_what_those_of_a_run_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and augmentation from the same generators, with evaluations at other steps."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    split: dict[str, Any] = {
        "batch_size": 16,
        "micro_batch_size": 4,
        "grad_accum_steps": 4,
        "schedule": "linear",
        "lr": 0.05,
    }
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text_of(changed(spec="kinds.py:Chance"), steps=30, **split), "page", "exec"), names)
    workload = Workload(load_task(str(Path(__file__).with_name("kinds.py")) + ":Chance").task)
    workload.load_with(0)
    training = Training(workload, RunConfig(task="chance", max_steps=30, **split))
    training.advance()
    assert names["step"] == training.steps == 30
    for name, weight in training.model.state_dict().items():
        torch.testing.assert_close(names["model"].state_dict()[name], weight)


EMA = Target(metric="ema_val_loss", value=0.1, mode="min", confirm=3)
SIDES: tuple[tuple[dict[str, Any], ...], ...] = (
    ({}, {"loading": "tensors"}, {"loading": "stream"}, {"loader_options": {"num_workers": 2}}),
    ({}, {"device": "cuda"}, {"device": "cuda", "precision": "float16"}, {"precision": "bfloat16"}),
    ({}, {"held_back": 40}, {"ema_decay": 0.999, "loss_at": '["loss"]'}),
)
MEMBERS = (
    ("evaluate",),
    ("evaluate", "collate", "loader_options", "loss_weight", "before_update"),
    ("evaluate", "sampler", "collate", "schedule"),
)
RECIPES: tuple[dict[str, Any], ...] = (
    {},
    {"micro_batch_size": 8, "grad_accum_steps": 4, "schedule": "cosine", "warmup_steps": 5, "final_lr": 0.1},
    {"schedule": "task", "optimizer_changes": {"betas": [0.9, 0.98]}},
)


def test_every_program_is_clean(tmp_path: Path) -> None:
    """Ruff has nothing to say about any combination, its lines of up to 100 characters included."""
    for number, (*sides, members, recipe) in enumerate(itertools.product(*SIDES, MEMBERS, RECIPES)):
        task = changed(members=members)
        for side in sides:
            task = dataclasses.replace(task, **side)
        if task.held_back:
            task = dataclasses.replace(task, members=tuple(name for name in members if name != "evaluate"))
        text = text_of(task, EMA if task.ema_decay else plans.TARGET, **recipe)
        (tmp_path / f"p{number}.py").write_text(f"{text}\n", encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    rules = "E4,E5,E7,E9,F,W,B,UP,SIM,C4,RUF,PL"
    for words in (["check", "--select", rules, "--ignore", "PLR2004"], ["format", "--check"]):
        command = [*ruff, words[0], "--isolated", "--no-cache", "--line-length", "100", *words[1:], str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[:3000] + done.stderr


LIBRARY = LibraryArguments(
    call="TrainingArguments",
    names={
        "micro_batch_size": "per_device_train_batch_size",
        "grad_accum_steps": "gradient_accumulation_steps",
        "lr": "learning_rate",
        "steps": "max_steps",
        "schedule": "lr_scheduler_type",
        "warmup_steps": "warmup_steps",
    },
    schedules={"cosine": "cosine"},
    shares={"warmup_steps": 0.25},
)


@pytest.mark.parametrize(
    ("recipe", "told", "above"),
    [
        ({"schedule": "task", "steps": 40}, {"max_steps": 40, "warmup_steps": 10}, ""),
        ({"schedule": "cosine", "steps": 40}, {"max_steps": 40, "lr_scheduler_type": "cosine", "warmup_steps": 0}, ""),
        ({"schedule": "wsd", "steps": 40}, {"max_steps": 40}, "# learning rate: constant for four fifths"),
    ],
)
def test_a_task_of_another_librarys_trainer_says_its_arguments(
    recipe: dict[str, Any], told: dict[str, Any], above: str
) -> None:
    plan = plan_of(changed(library=LIBRARY), lr=0.0125, grad_accum_steps=2, micro_batch_size=16, **recipe)
    code = [block.text for block in build(plan, []).blocks if isinstance(block, Code)]
    assert len(code) == 2
    assert code[0].startswith(above or "TrainingArguments(")
    given = eval(code[0], {"TrainingArguments": lambda _, **named: named})
    assert given == {
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.0125,
        **told,
    }
    assert decode(Plan, encode(plan)) == plan
