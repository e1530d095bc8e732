"""Kinds of tasks whose program a test takes from the page: each has what another kind of training has."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

SGD = torch.optim.SGD


def numbers(examples, seed):
    """Inputs, and a noisy linear function of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 4, generator=generator)
    noise = 0.1 * torch.randn(examples, 1, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + noise


class Tensors:
    """Tensors in memory."""

    def __init__(self, bias: bool = True):
        self.bias = bias

    def model(self):
        return nn.Linear(4, 1, bias=self.bias)

    def train_data(self):
        return TensorDataset(*numbers(250, 0))

    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return SGD(params, lr=lr)

    def evaluate(self, model):
        x, y = numbers(100, 1)
        return {"val_loss": float(F.mse_loss(model(x), y))}


class Dicts(Tensors):
    """Examples are dicts, joined by a collate of its own; the loss returns a dict."""

    def train_data(self):
        return [{"x": x, "y": y} for x, y in zip(*numbers(250, 0), strict=True)]

    def collate(self, examples):
        return {name: torch.stack([example[name] for example in examples]) for name in ("x", "y")}

    def loss(self, model, batch):
        return {"loss": F.mse_loss(model(batch["x"]), batch["y"]), "size": len(batch["x"])}


class Padded:
    """Sequences of unequal length, padded with 0; the loss is a mean over tokens."""

    def train_data(self):
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(2, 12, (300,), generator=generator).tolist()
        return [torch.randint(1, 9, (length,), generator=generator).sort().values for length in lengths]

    def collate(self, examples):
        return nn.utils.rnn.pad_sequence(examples, batch_first=True)

    def model(self):
        return nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)

    def loss_weight(self, batch):
        return (batch[:, 1:] != 0).sum()

    def optimizer(self, params, lr):
        return SGD(params, lr=lr)

    def evaluate(self, model):
        return {"val_loss": float(self.loss(model, self.collate(self.train_data()[:100])))}


class Groups(Tensors):
    """bfloat16, clipping, and weight decay for the weights but not for the biases."""

    precision = "bfloat16"

    def model(self):
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def optimizer(self, model, lr):
        weights = {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01}
        biases = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
        return torch.optim.AdamW([weights, biases], lr=lr)

    def before_update(self, model):
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class Augmented(Dataset):
    def __init__(self):
        self.x, self.y = numbers(250, 0)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + 0.02 * torch.randn(4), self.y[i]


class Workers(Tensors):
    def __init__(self):
        super().__init__()
        self.loader_options = {"num_workers": 2, "persistent_workers": True}

    def train_data(self):
        return Augmented()


class Averaged(Tensors):
    """Averaged weights; without an `evaluate`."""

    evaluate = None
    ema_decay = 0.9


class Lazy(Tensors):
    """A layer that learns its input size at its first call."""

    def model(self):
        return nn.LazyLinear(1)


class Line(nn.Linear):
    """A model with a method of its own."""

    def predict(self, x):
        return self(x)


class Predicting(Tensors):
    """Averaged weights, and an `evaluate` that calls a method of the model's own class."""

    ema_decay = 0.9

    def model(self):
        return Line(4, 1)

    def evaluate(self, model):
        x, y = numbers(100, 1)
        return {"val_loss": float(F.mse_loss(model.predict(x), y))}


class Drawn(Dataset):
    """Each example drawn anew, from every generator that there is."""

    def __init__(self):
        self.x, self.y = numbers(250, random.randrange(100))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        drawn = random.random() + np.random.random()  # noqa: NPY002
        return self.x[i] + 0.2 * drawn + 0.2 * torch.randn(4), self.y[i]


class Chance(Tensors):
    """Dropout, examples that are drawn anew, and an evaluation through a loader, which draws a seed."""

    def __init__(self):
        super().__init__()
        self.scale = random.random()

    def model(self):
        return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Linear(16, 1))

    def train_data(self):
        return Drawn()

    def loss(self, model, batch):
        return (1.0 + self.scale) * F.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model):
        chunks = DataLoader(TensorDataset(*numbers(100, 1)), batch_size=50)
        return {"val_loss": sum(float(F.mse_loss(model(x), y)) for x, y in chunks) / 2}


class HeldBack(Padded):
    """Without an `evaluate`."""

    evaluate = None


class Endless(IterableDataset):
    """A stream without an end."""

    def __iter__(self):
        seed = 0
        while True:
            yield from zip(*numbers(50, seed), strict=True)
            seed += 2


class Stream(Tensors):
    def train_data(self):
        return Endless()


class Ordered(Tensors):
    """An order of its own: some examples twice in each epoch."""

    def sampler(self, seed):
        order = torch.randperm(250, generator=torch.Generator().manual_seed(seed)).tolist()
        return order + order[:50]
