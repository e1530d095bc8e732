"""The next character of Shakespeare's plays by a small GPT: two layers, 64 characters of context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "tinyshakespeare" / "tinyshakespeare.npz"
CONTEXT, WIDTH, HEADS, LAYERS = 64, 64, 4, 2


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of the text that do not overlap, with the same window one character later."""

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = torch.from_numpy(codes.astype(np.int64))

    def __len__(self) -> int:
        return (len(self.codes) - 1) // CONTEXT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = index * CONTEXT
        return self.codes[start : start + CONTEXT], self.codes[start + 1 : start + CONTEXT + 1]


class Block(nn.Module):
    """Attention to what came before, then two layers on each character by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention(self.norm_1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        return x + self.layers(self.norm_2(x))


class GPT(nn.Module):
    """Characters and their places embedded, blocks, and scores of the next character."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.scores = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters))

    def forward(self, codes: Tensor) -> Tensor:
        places = self.places(torch.arange(codes.shape[1], device=codes.device))
        return self.scores(self.blocks(self.characters(codes) + places))


class Shakespeare:
    """AdamW on the mean loss of a character."""

    def __init__(self) -> None:
        with np.load(DATA) as file:
            self.train, self.val = Windows(file["train"]), Windows(file["val"])
            self.characters = len(file["vocab"])
        self.val_windows = torch.arange(0, len(self.val), max(1, len(self.val) // 200))[:200].tolist()

    def model(self) -> nn.Module:
        return GPT(self.characters)

    def train_data(self) -> Dataset[Any]:
        return self.train

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        codes, following = batch
        return F.cross_entropy(model(codes).flatten(0, 1), following.flatten())

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.95), weight_decay=0.1)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        codes, following = (torch.stack(part) for part in zip(*(self.val[i] for i in self.val_windows), strict=True))
        return {"val_loss": self.loss(model, (codes, following)).item()}


def task() -> Shakespeare:
    return Shakespeare()
