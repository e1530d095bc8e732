"""Small models with layers of every kind, and the gradients of their single examples from autograd."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.live.sources.per_example import PerExampleSource
from batchscope.live.window import Window
from batchscope.store.records import Row

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Block(nn.Module):
    """Causal attention by hand, so that each of its maps is a layer, and a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.RMSNorm(width)
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attention(self.first(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Gpt(nn.Module):
    def __init__(self, *, tied: bool = False, words: int = 11, width: int = 8) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(6, width)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.blocks(x))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def make_cnn() -> nn.Module:
    first = (nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True))
    return nn.Sequential(
        *first, nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(54, 3)
    )


def vectors(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5), torch.randint(3, (n,))


def images(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, 8, 8), torch.randint(3, (n,))


def texts(n: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (n, 6))
    return ids, ids.roll(-1, 1)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "mlp": (make_mlp, vectors),
    "cnn": (make_cnn, images),
    "gpt": (Gpt, texts),
}


def exact(
    model: nn.Module, x: Tensor, y: Tensor, names: Sequence[str], loss: Loss = cross_entropy
) -> tuple[float, float]:
    """Mean of `|g_i|²` over the examples, and `|mean g_i|²`, in float64, over some parameters."""
    model = copy.deepcopy(model).double()
    x = x.double() if x.is_floating_point() else x
    chosen = [p for name, p in model.named_parameters() if name in names]
    rows: list[Tensor] = []
    for i in range(len(x)):
        gradients = torch.autograd.grad(loss(model, x[i : i + 1], y[i : i + 1]), chosen)
        rows.append(torch.cat([g.to_dense().flatten() for g in gradients]))
    each = torch.stack(rows)
    return float(each.square().sum(1).mean()), float(each.mean(0).square().sum())


def prepare(model: nn.Module, **options: Any) -> tuple[PerExampleSource, torch.optim.Optimizer]:
    source, optimizer = PerExampleSource(**options), torch.optim.SGD(model.parameters(), lr=0.0)
    source.attach(model, optimizer)
    return source, optimizer


def covered(model: nn.Module, source: PerExampleSource) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and name not in source.left_out]


def assert_row(row: Row | None, truth: tuple[float, float], *, rtol: float = 1e-6) -> None:
    assert row is not None
    assert math.isclose(row["mean_square_norm"], truth[0], rel_tol=rtol)
    assert math.isclose(row["square_norm_of_mean"], truth[1], rel_tol=rtol)


def window(batch_size: int, **rest: Any) -> Window:
    return Window(step=0, examples_before=0, batch_size=batch_size, **rest)


def leave_out(
    model: nn.Module, batch: tuple[Tensor, Tensor], loss: Loss = cross_entropy
) -> tuple[PerExampleSource, Row | None]:
    source, _ = prepare(model)
    loss(model, *batch).backward()
    return source, source.take(window(len(batch[0])))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(torch.tanh(self.inner(x))))
