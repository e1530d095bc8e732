"""Three trainings whose lengths are given: a regression, a classification of few positives, a small language model.

Each is judged by one metric, the only one that its `evaluate` returns: `val_rmse`, `val_auc`, `val_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_SHIRT = 6
_CHARACTERS = 32


class Bikes:
    """Bicycles rented in an hour, as the logarithm of their number: Adam on the squared error."""

    def __init__(self) -> None:
        with np.load(DATA / "bike_sharing" / "bike_sharing.npz") as file:
            mean, spread = file["x_train"].mean(0), file["x_train"].std(0) + 1e-6
            x = {part: torch.from_numpy((file[f"x_{part}"] - mean) / spread).float() for part in ("train", "val")}
            y = {part: torch.from_numpy(file[f"y_{part}"]).float().log1p().reshape(-1, 1) for part in ("train", "val")}
        middle, scale = y["train"].mean(), y["train"].std()
        self.train = TensorDataset(x["train"][:4000], ((y["train"] - middle) / scale)[:4000])
        self.x_val, self.y_val = x["val"], (y["val"] - middle) / scale

    def model(self) -> nn.Module:
        width = 64
        layers = [nn.Linear(self.x_val.shape[1], width), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 1))

    def train_data(self) -> TensorDataset:
        return self.train

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_rmse": F.mse_loss(model(self.x_val), self.y_val).sqrt().item()}


class Shirts:
    """Whether a piece of clothing is a shirt, one in ten: SGD with momentum on the cross entropy."""

    def __init__(self) -> None:
        with np.load(DATA / "fashion_mnist" / "fashion_mnist.npz") as file:
            x = {part: torch.from_numpy(file[f"x_{part}"]).float() / 255 for part in ("train", "val")}
            y = {part: torch.from_numpy(file[f"y_{part}"]) == _SHIRT for part in ("train", "val")}
        self.train = TensorDataset(x["train"].flatten(1)[:6000], y["train"].float()[:6000])
        self.x_val, self.y_val = x["val"].flatten(1), y["val"]

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))

    def train_data(self) -> TensorDataset:
        return self.train

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), batch[1])

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_auc": area(model(self.x_val).squeeze(1), self.y_val)}


class Shakespeare:
    """The next character of a play, by one layer of attention over 32 of them: AdamW on the cross entropy."""

    def __init__(self) -> None:
        with np.load(DATA / "tinyshakespeare" / "tinyshakespeare.npz") as file:
            self.characters = len(file["vocab"])
            train, val = (self._pieces(file[part]) for part in ("train", "val"))
        self.train, self.val = TensorDataset(train[:2000]), val[:300]

    def _pieces(self, codes: np.ndarray) -> Tensor:
        whole = codes[: len(codes) // (_CHARACTERS + 1) * (_CHARACTERS + 1)].astype(np.int64)
        return torch.from_numpy(whole).reshape(-1, _CHARACTERS + 1)

    def model(self) -> nn.Module:
        return Attention(self.characters)

    def train_data(self) -> TensorDataset:
        return self.train

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten())

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": self.loss(model, [self.val]).item()}


class Attention(nn.Module):
    """One block: attention to the characters before, and a perceptron."""

    def __init__(self, characters: int, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(characters, width), nn.Embedding(_CHARACTERS, width)
        self.block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.scores = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters))
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(_CHARACTERS))

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embedding(codes) + self.position.weight[: codes.shape[1]]
        return self.scores(self.block(x, src_mask=self.mask[: codes.shape[1], : codes.shape[1]], is_causal=True))


def area(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: how often a positive example has a higher score than a negative one."""
    ranks = scores.double().argsort().argsort().double() + 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def bikes() -> Any:
    """The regression."""
    return Bikes()


def shirts() -> Any:
    """The classification."""
    return Shirts()


def shakespeare() -> Any:
    """The language model."""
    return Shakespeare()
