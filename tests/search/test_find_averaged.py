"""A search for a target on the averaged weights: its first looks, and the model that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from batchscope.search.runs import SearchRuns
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload

from .folders import Cli, answer

AVERAGED = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Averaged:
    """Noisy numbers; the averaged weights get further than the weights."""
    ema_decay = 0.9
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(400, 4, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + torch.randn(400, 1, generator=generator)
    def model(self):
        return nn.Linear(4, 1)
    def train_data(self):
        return TensorDataset(self.x[:300], self.y[:300])
    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return {"val_loss": nn.functional.mse_loss(model(self.x[300:]), self.y[300:])}
'''
FIND = "find averaged.py:Averaged --hardware machine.json --evaluation-share 100% --trainings 3 --out out"


@pytest.fixture(autouse=True)
def averaged_file(cli: Cli, profile: Path) -> None:
    del cli, profile  # in their folder
    Path("averaged.py").write_text(AVERAGED, encoding="utf-8")


def test_runs_pause_at_a_milestone_of_the_averaged_weights(cli: Cli) -> None:
    answer(cli, f"{FIND} --target ema_val_loss<=1.2")
    ends = [json.loads(path.read_text())["status"] for path in Path("out").rglob("result.interrupted-*.json")]
    assert "paused" in ends


def of_kept(path: str) -> float:
    """Metric of the file in a model of the task."""
    workload = Workload(load_task("averaged.py:Averaged").task)
    model = workload.model(1)
    model.load_state_dict(torch.load(path, weights_only=True))
    return workload.evaluate(model)["val_loss"]


@pytest.mark.parametrize("again", [False, True], ids=["kept", "trained again"])
def test_the_model_that_is_kept_has_the_weights_that_are_judged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also of a folder that has kept the weights of the same runs for a target on them."""
    if again:
        monkeypatch.setattr(SearchRuns, "_keep_model", lambda *given: None)
    plan = answer(cli, f"{FIND} --target ema_val_loss<=1.2 --keep-model averaged.pt")
    assert of_kept("averaged.pt") == pytest.approx(plan["verified"]["metric"], rel=1e-6)
    plan = answer(cli, f"{FIND} --target val_loss<=1.3 --keep-model own.pt")
    assert of_kept("own.pt") == pytest.approx(plan["verified"]["metric"], rel=1e-6)
