"""The next character of single lines of text, by a recurrent network: lines of unequal length, padded by the collate.

What is padded counts in no loss: a batch's loss is the mean over its characters, and a batch of long lines has more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "tinyshakespeare" / "tinyshakespeare.npz"
PADDING = -100
"""What stands in the place of a character that is not there."""


class Lines(Dataset[Tensor]):
    """The lines of a text as codes, the end of the line included; empty lines are left out."""

    def __init__(self, codes: np.ndarray, end: int) -> None:
        ends = np.flatnonzero(codes == end) + 1
        lines = np.split(codes.astype(np.int64), ends)
        self.lines = [torch.from_numpy(line) for line in lines if len(line) > 2]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Tensor:
        return self.lines[index]


class Network(nn.Module):
    """Embedded characters through one recurrent layer."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.recurrent = nn.GRU(32, 96, batch_first=True)
        self.scores = nn.Linear(96, characters)

    def forward(self, codes: Tensor) -> Tensor:
        return self.scores(self.recurrent(self.embedding(codes))[0])


class NextCharacter:
    """Adam on the mean loss of a character that is there."""

    def __init__(self) -> None:
        with np.load(DATA) as file:
            vocabulary = file["vocab"].tolist()
            end = vocabulary.index("\n")
            self.train, val = Lines(file["train"], end), Lines(file["val"], end)
        self.characters = len(vocabulary)
        self.val = self.collate(val.lines[:: max(1, len(val) // 400)])

    def model(self) -> nn.Module:
        return Network(self.characters)

    def train_data(self) -> Dataset[Any]:
        return self.train

    def collate(self, lines: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        codes = pad_sequence([line[:-1] for line in lines], batch_first=True)
        following = pad_sequence([line[1:] for line in lines], batch_first=True, padding_value=PADDING)
        return codes, following

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        codes, following = batch
        there = following != PADDING
        return F.cross_entropy(model(codes)[there], following[there])

    def loss_weight(self, batch: tuple[Tensor, Tensor]) -> float:
        return float((batch[1] != PADDING).sum())

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": self.loss(model, self.val).item()}


def task() -> NextCharacter:
    return NextCharacter()
