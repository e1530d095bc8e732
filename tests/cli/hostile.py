"""A task whose every name and message tries to steer a terminal, a page or the eye."""

from __future__ import annotations

NASTY = (
    "m\x1b[2J\x1b]0;title\x07\r\n\x08\x7f\x85\x9b2J\u202egnp\u2066\u2028\u200f\ufeff\U000e0041"
    "<img src=x onerror=alert(1)>[red][/]`*_{0}%{y}&amp;\\N{x}\"'; import os #\udcff"
)
"""Steps of the cursor, a new title, line breaks, overwriting, C1 controls, turned text, markup of four kinds, code."""

HOSTILE = f"""
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

NASTY = {NASTY!a}

class Hostile:
    def __init__(self, **settings):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(120, 4, generator=generator)
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0)
    def model(self):
        return nn.Sequential(nn.Linear(4, 3))
    def train_data(self):
        return TensorDataset(self.x[:100], self.y[:100])
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        made = torch.optim.SGD(params, lr=lr)
        made.param_groups[0][NASTY] = NASTY
        return made
    def evaluate(self, model):
        value = F.cross_entropy(model(self.x[100:]), self.y[100:])
        return {{"val_loss": value, "test_" + NASTY: value, NASTY: value}}

Hostile.__name__ = Hostile.__qualname__ = NASTY[:-1]
Hostile.__module__ = NASTY

class Raises(Hostile):
    def loss(self, model, batch):
        raise RuntimeError(NASTY)

def task(**settings):
    return Hostile(**settings)
"""


def harmful(text: str) -> set[str]:
    """What must not be in a text that is shown: whatever does not print, line breaks and hard spaces apart."""
    return {c for c in text if not c.isprintable() and c not in "\n\N{NO-BREAK SPACE}"}
