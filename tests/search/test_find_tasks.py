"""Searches on tasks of all kinds: batch normalisation, loaders with workers, arrays, text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .folders import Cli, answer, configs_of

# --- examples that depend on one another --------------------------------------------------------------------------

BATCH_NORM = (
    "find digits --set model=cnn --set norm=batch --hardware machine.json --target val_loss<=0.6 --trainings 0.5"
)


@pytest.mark.usefixtures("profile")
def test_batch_normalisation_switches_the_noise_scale_off_and_says_so(cli: Cli) -> None:
    plan = answer(cli, f"{BATCH_NORM} --max-batch-size 128 --out out")
    assert plan["measured"]["gradient_noise_scale"]["value"] is None
    assert not any(config["noise_scale_groups"] for config in configs_of("out"))
    assert any("batch normalisation" in note and "switched off" in note for note in plan["notes"])
    assert "switched off" in Path("out/report.html").read_text(encoding="utf-8")
    assert "Note: " in cli(f"{BATCH_NORM} --max-batch-size 128 --out out").out


@pytest.mark.usefixtures("memory_profile")
def test_f35_accumulation_under_batch_normalisation_is_said_to_be_something_else(cli: Cli) -> None:
    command = f"{BATCH_NORM} --memory-limit 300kB --current batch_size=32,lr=0.1"
    ended = cli(f"{command} --json --out out")
    assert ended.answer["current"]["grad_accum_steps"] > 1
    assert any(
        "accumulated micro-batches are not the same as one large batch" in note for note in ended.answer["notes"]
    )


# --- tasks of all kinds -------------------------------------------------------------------------------------------

DICTIONARIES = '''
import time
import torch
from torch import nn
from torch.nn import functional as F

class Examples:
    """Costs enough for an example that the loader takes workers."""
    def __init__(self, first, last):
        self.first, self.last = first, last
    def __len__(self):
        return self.last - self.first
    def __getitem__(self, index):
        time.sleep(0.0004)
        x = torch.randn(4, generator=torch.Generator().manual_seed(self.first + index))
        return {"inputs": x, "label": int(x[0] > 0)}

class Task:
    def model(self):
        return nn.Linear(4, 2)
    def train_data(self):
        return Examples(0, 200)
    def loss(self, model, batch):
        assert set(batch) == {"inputs", "label"}
        return F.cross_entropy(model(batch["inputs"]), batch["label"])
    def optimizer(self, params, lr):
        return torch.optim.AdamW(params, lr=lr)
'''


def test_dictionaries_through_a_loader_with_workers_and_without_evaluate(cli: Cli, profile: Path) -> None:
    from batchscope.tasks.loading import load_task
    from batchscope.tasks.workload import Workload

    Path("dictionaries.py").write_text(DICTIONARIES, encoding="utf-8")
    assert Workload(load_task("dictionaries.py:Task").task).loader_workers > 0
    plan = answer(
        cli,
        "find dictionaries.py:Task --target val_loss<=0.6 --trainings 0.5 --max-batch-size 32 --hardware machine.json",
    )
    assert plan["target"]["metric"] == "val_loss"
    assert any("held back" in note for note in plan["notes"])
    assert plan["examples_in_training_set"] == 180


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_arrays(cli: Cli, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) if kind == "classes" else (2 * x[:, 0] + 1).astype(np.float32)
    np.savez("mine.npz", x_train=x[:300], y_train=y[:300], x_val=x[300:], y_val=y[300:])
    plan = answer(
        cli,
        "find arrays --set path=mine.npz --set hidden=8 --set optimizer=sgd --target val_loss<=0.45 --trainings 0.5 "
        "--hardware machine.json",
    )
    assert plan["task"] == "arrays"
    assert plan["verified"]["metric"] <= 0.45
    problem = (
        "classification: y holds integers, 2 classes" if kind == "classes" else "regression: y holds float32 numbers"
    )
    assert plan["notes"][0].startswith(problem)
    assert "inputs are taken as a table of 5 columns (float32), each standardised" in plan["notes"]


@pytest.mark.usefixtures("profile")
def test_text(cli: Cli) -> None:
    Path("mine.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    plan = answer(
        cli,
        "find text --set path=mine.txt --set context=16 --set width=16 --set depth=1 --target val_loss<=2.3 "
        "--trainings 0.5 --max-batch-size 32 --hardware machine.json",
    )
    assert plan["verified"]["metric"] <= 2.3
    assert plan["notes"][0].startswith("a code is a character, 28 different ones")
