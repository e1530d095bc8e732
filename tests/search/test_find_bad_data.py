"""A search whose runs fail for another reason than the learning rate: it is said, and no recipe is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .folders import Cli

TASK = """
import math
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

X = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()

class Task:
    def model(self):
        return nn.Linear(4, 2)
    def train_data(self):
        return TensorDataset(X[:400], Y[:400])
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return {"val_loss": float(F.cross_entropy(model(X[400:]), Y[400:]))}

def task():
    return Task()
"""
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
EMPTY = f"{LOSS} + model(batch[0])[batch[0][:, 0] > 2.0].square().mean()"
"""A mean over the examples with a large first input, which few batches have: NaN in most small batches."""
LOST = f"model.calls += model.training; {LOSS} * (1.0 if model.calls <= 40 else math.nan)"
"""NaN after some calls of one model: at any learning rate, and for no batch with fresh weights."""
MODEL = "return nn.Linear(4, 2)"
COUNTED = "model = nn.Linear(4, 2); model.calls = 0; return model"
LIST = "return [(X[i].clone(), int(Y[i])) for i in range(400)]"
DATA = "return TensorDataset(X[:400], Y[:400])"


def found(tmp_path: Path, cli: Cli, changes: dict[str, str], *more: str) -> Any:
    text = TASK
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "spoilt.py").write_text(text, encoding="utf-8")
    return cli("find spoilt.py --out out --hardware machine.json", *more)


@pytest.mark.usefixtures("profile")
def test_a_batch_that_has_no_loss_ends_the_search(tmp_path: Path, cli: Cli) -> None:
    ended = found(tmp_path, cli, {LOSS: EMPTY})
    assert ended.status == 2
    assert "the loss is NaN in" in ended.err
    assert "so this batch is the cause and not the learning rate: no input is NaN or inf" in ended.err
    assert "divide by max(1, its number)" in ended.err
    assert not (tmp_path / "out" / "plan.json").exists()


@pytest.mark.usefixtures("profile")
def test_one_nan_in_a_list_is_named_before_anything_is_measured(tmp_path: Path, cli: Cli) -> None:
    ended = found(tmp_path, cli, {"Y = (X": "X[300, 2] = math.nan\nY = (X", DATA: LIST})
    assert ended.status == 2
    assert "batch[0] (shape (16, 4)) holds 1 NaN in 1 of 16 examples (300 of train_data()" in ended.err
    assert "range test" not in ended.err


@pytest.mark.usefixtures("profile")
def test_no_recipe_comes_of_runs_that_all_diverged(tmp_path: Path, cli: Cli) -> None:
    ended = found(tmp_path, cli, {LOSS: LOST, MODEL: COUNTED}, "--json")
    assert ended.status == 3, ended.err
    assert ended.answer["recipe"] is None
    assert ended.answer["status"] == "insufficient-data"
    assert "diverged after" in ended.answer["message"]
    assert "it is not known that the learning rate is to blame" in ended.answer["message"]
