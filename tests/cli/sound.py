"""A sound task, of which tests replace one member, and how a command refuses."""

from __future__ import annotations

import re
from typing import Any

SOUND = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset, TensorDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter([])

class Sound:
    def __init__(self, width: int = 4):
        self.width = width
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(120, width, generator=generator)
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0)
    def model(self):
        return nn.Linear(self.width, 3)
    def train_data(self):
        return TensorDataset(self.x[:100], self.y[:100])
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        outputs = model(self.x[100:])
        right = outputs.argmax(1) == self.y[100:]
        return {"val_loss": F.cross_entropy(outputs, self.y[100:]), "accuracy": right.float().mean()}
"""


def refused(ended: Any, message: str) -> None:
    """One message on stderr, nothing on stdout, no traceback, exit status 2."""
    assert ended.status == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    said = [line for line in ended.err.splitlines() if line.startswith("batchscope: ")]
    assert len(said) == 1, ended.err
    assert re.search(message, said[0]), said[0]
