"""Padded sequences of unequal length, their loss the mean over tokens, in float64: what accumulation must weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import Dataset

CODES, PADDING = 11, -100


class Sequences(Dataset[Tensor]):
    """Sequences of 2 to 24 codes."""

    def __init__(self, examples: int = 60, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 25, (examples,), generator=generator).tolist()
        self.items = [torch.randint(CODES, (length,), generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[index]


def collate(items: list[Tensor]) -> dict[str, Tensor]:
    padded = nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=PADDING)
    return {"x": padded[:, :-1].clamp(min=0), "y": padded[:, 1:]}


class Tokens:
    """Predict the next code; tests set what else a task may have."""

    def __init__(self, optimizer: Callable[..., Optimizer] | None = None, **members: Any) -> None:
        self.make_optimizer = optimizer or (lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9))
        self.train, self.val = Sequences(), Sequences(30, seed=1)
        vars(self).update(members)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(CODES, 6), nn.Linear(6, CODES)).double()

    def train_data(self) -> Dataset[Tensor]:
        return self.train

    def collate(self, items: list[Tensor]) -> dict[str, Tensor]:
        return collate(items)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["x"]).flatten(0, 1), batch["y"].flatten(), ignore_index=PADDING)

    def loss_weight(self, batch: dict[str, Tensor]) -> int:
        return int((batch["y"] != PADDING).sum())

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return self.make_optimizer(params, lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": self.loss(model, collate(self.val.items)).item(), "test_loss": 1.0}


class Unweighted(Tokens):
    """The same, without its numbers of tokens."""

    loss_weight: Any = None
