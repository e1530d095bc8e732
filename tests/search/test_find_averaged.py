"""A search for a target on the averaged weights: its first looks, and the model that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
