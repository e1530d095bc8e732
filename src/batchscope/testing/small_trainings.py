"""Small trainings whose good learning rates are known, of kinds on which a range test of the learning rate has no edge.

Losses with a bound, normalised outputs and weights, noisy images, adaptive optimizers, ten parameters, targets in
thousands, a start that is nearly the end. What is good at the batch size of each was found by
`benchmarks/search/first_learning_rates.py`, by a grid of learning rates a factor of 3 apart: those that need at most
1.3 times the fewest steps to a loss. A first learning rate can then be judged without training anything but its range
test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, WeightedRandomSampler

from ..tasks.builtin.digits import digits
from ..tasks.protocol import Batch, Task, task

__all__ = ["SMALL_TRAININGS", "Lion", "SmallTraining"]

_VAL = 300


@dataclass(frozen=True, kw_only=True)
class SmallTraining:
    """A training of a few seconds.

    Attributes:
        name: of the training, its optimizer first.
        make: makes its task; the metric is `val_loss`.
        batch_size: at which its good learning rates were found.
        steps: of the longest run of the grid.
        good: the lowest and the highest learning rate of the grid that are good, both included.
    """

    name: str
    make: Callable[[], Task]
    batch_size: int
    steps: int
    good: tuple[float, float]


class Lion(torch.optim.Optimizer):
    """Lion, as a user has it in a file: `w -= lr sign(β₁ m + (1 - β₁) g)`, then `m` moves towards `g` by `1 - β₂`.

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", without weight decay.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the weights by the sign of the averaged gradient."""
        for group in self.param_groups:
            towards, keep = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                p.sub_(torch.sign(towards * average + (1.0 - towards) * p.grad), alpha=group["lr"])
                average.lerp_(p.grad, 1.0 - keep)


def _trained(
    model: Callable[[], nn.Module],
    data: tuple[Tensor, ...],
    loss: Callable[[nn.Module, Batch], Tensor],
    optimizer: Callable[[Any, float], torch.optim.Optimizer],
    *,
    before_update: Callable[[nn.Module], object] | None = None,
) -> Task:
    """A task on tensors, of which the last examples are the validation split."""
    train, val = [t[:-_VAL] for t in data], [t[-_VAL:] for t in data]
    return task(
        model=model,
        train=TensorDataset(*train),
        loss=loss,
        optimizer=optimizer,
        evaluate=lambda model: {"val_loss": float(loss(model, val))},
        before_update=before_update,
    )


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _images() -> tuple[Tensor, Tensor]:
    """Digits of 8 x 8 pixels as rows, in a fixed order."""
    parts = cast(Any, digits()).parts
    return torch.cat([parts[part][0] for part in parts]), torch.cat([parts[part][1] for part in parts])


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _square(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def _of_digits(optimizer: Callable[[Any, float], torch.optim.Optimizer], **more: Any) -> Task:
    return _trained(lambda: _perceptron(64, 64, 10), _images(), _cross_entropy, optimizer, **more)


def _curved(examples: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Inputs, and a smooth function of them with a little noise."""
    x = _drawn(examples, inputs)
    mixed = torch.tanh(x @ _drawn(inputs, 2 * outputs, seed=1) / math.sqrt(inputs))
    return x, mixed @ _drawn(2 * outputs, outputs, seed=2) + 0.1 * _drawn(examples, outputs, seed=3)


def _batch_norm(optimizer: Any) -> Task:
    return digits(model="cnn", norm="batch", optimizer=optimizer)


class _Stripes(Dataset[tuple[Tensor, Tensor]]):
    """Noisy images of 12 x 12 pixels with stripes in one of six directions, of which some are rare.

    Args:
        examples: how many.
        seed: of the images.
        moved: whether an image is shifted by up to two pixels and gets a little more noise each time that it is asked
            for.
    """

    def __init__(self, examples: int, seed: int, *, moved: bool) -> None:
        drawn = torch.Generator().manual_seed(seed)
        shares = torch.tensor([0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
        self.moved = moved
        self.y = torch.multinomial(shares, examples, replacement=True, generator=drawn)
        angle, phase = 0.5 * self.y, 2.0 * math.pi * torch.rand(examples, generator=drawn)
        down, across = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
        along = across * torch.cos(angle)[:, None, None] + down * torch.sin(angle)[:, None, None]
        noise = torch.randn(examples, 12, 12, generator=drawn)
        self.x = (torch.sin(1.3 * along + phase[:, None, None]) + 2.0 * noise)[:, None]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.x[index]
        if self.moved:
            image = torch.roll(image, torch.randint(-2, 3, (2,)).tolist(), (1, 2)) + 0.1 * torch.randn_like(image)
        return image, self.y[index]

    def evenly(self, seed: int) -> WeightedRandomSampler:
        """Draws all directions alike."""
        weights = (1.0 / torch.bincount(self.y))[self.y].tolist()
        return WeightedRandomSampler(weights, len(self), generator=torch.Generator().manual_seed(seed))


def _stripes() -> Task:
    def model() -> nn.Module:
        first = (nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2))
        second = (nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(3))
        return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(216, 6))

    train, val = _Stripes(4000, 1, moved=True), _Stripes(1000, 2, moved=False)
    return task(
        model=model,
        train=train,
        loss=_cross_entropy,
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=5e-4),
        sampler=train.evenly,
        evaluate=lambda model: {"val_loss": float(_cross_entropy(model, [val.x, val.y]))},
    )


def _normalised_outputs() -> Task:
    def model() -> nn.Module:
        return nn.Sequential(_perceptron(64, 64, 10), nn.LayerNorm(10, elementwise_affine=False))

    return _trained(model, _images(), _cross_entropy, lambda params, lr: torch.optim.Adam(params, lr=lr))


class _Transformer(nn.Module):
    """One block with layer norms before attention and perceptron, and one before the output."""

    def __init__(self, tokens: int, length: int, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, tokens))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(self.tokens(x) + self.places.weight))


def _transformer() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0])[:, 1:].flatten(0, 1), batch[0][:, :-1].flatten())

    x = torch.randint(16, (2000, 10), generator=torch.Generator().manual_seed(0))
    return _trained(lambda: _Transformer(16, 10, 32), (x,), loss, lambda params, lr: torch.optim.AdamW(params, lr=lr))


def _cosine() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (1.0 - F.cosine_similarity(model(batch[0]), batch[1])).mean()

    return _trained(
        lambda: _perceptron(16, 64, 8),
        _curved(2000, 16, 8),
        loss,
        lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    )


def _squashed() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (torch.tanh(model(batch[0])) - torch.tanh(batch[1])).square().mean()

    return _trained(
        lambda: _perceptron(16, 64, 8), _curved(2000, 16, 8), loss, lambda params, lr: torch.optim.SGD(params, lr=lr)
    )


def _focal() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        right = torch.sigmoid(model(batch[0])[:, 0] * (2.0 * batch[1] - 1.0))
        return -((1.0 - right) ** 2 * torch.log(right.clamp(min=1e-6))).mean()

    x, y = _images()
    return _trained(
        lambda: _perceptron(64, 32, 1), (x, (y == 8).float()), loss, lambda params, lr: torch.optim.Adam(params, lr=lr)
    )


def _ten_parameters() -> Task:
    x = _drawn(1000, 1)
    y = torch.sin(x) + 0.1 * _drawn(1000, 1, seed=1)

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))

    return _trained(model, (x, y), _square, lambda params, lr: torch.optim.Adam(params, lr=lr))


def _huge_targets(optimizer: Callable[[Any, float], torch.optim.Optimizer]) -> Task:
    x, y = _curved(2000, 16, 1)
    return _trained(lambda: _perceptron(16, 64, 1), (x, 5000.0 + 1000.0 * y), _square, optimizer)


def _sums() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0]) - batch[0]).square().sum(1).mean()

    x, _ = _images()
    return _trained(
        lambda: _perceptron(64, 32, 64), (x,), loss, lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9)
    )


def _words() -> Task:
    """Ten of 2,000 words an example, most of which say nothing."""
    x = torch.randint(2000, (3000, 10), generator=torch.Generator().manual_seed(0))
    y = (_drawn(2000, 5)[x].mean(1) + 0.1 * _drawn(3000, 5, seed=1)).argmax(1)

    def model() -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(2000, 16), nn.Linear(16, 5))

    return _trained(model, (x, y), _cross_entropy, lambda params, lr: torch.optim.SGD(params, lr=lr))


class _Solved(nn.Module):
    """A linear classifier that begins with nearly the right direction."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out = nn.Linear(len(weight), 1)
        with torch.no_grad():
            self.out.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)[:, 0]


def _nearly_solved() -> Task:
    """One label in 44 is wrong."""
    x, weight = _drawn(2000, 20), _drawn(20, seed=1)
    x = x + 0.5 * torch.sign(x @ weight)[:, None] * weight
    y = ((x @ weight > 0) ^ (_drawn(2000, seed=3) > 2.0)).float()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    start = 0.3 * weight + 0.1 * _drawn(20, seed=2)
    return _trained(lambda: _Solved(start), (x, y), loss, lambda params, lr: torch.optim.AdamW(params, lr=lr))


def _contrastive() -> Task:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        one, other = (F.normalize(model(view)) for view in batch)
        return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one)))

    hidden, mix = _drawn(2000, 8), _drawn(8, 32, seed=1)
    views = tuple(hidden @ mix + 2.0 * _drawn(2000, 32, seed=seed) for seed in (2, 3))
    return _trained(lambda: _perceptron(32, 64, 16), views, loss, lambda params, lr: torch.optim.AdamW(params, lr=lr))


def _clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)


def _with(kind: Callable[..., torch.optim.Optimizer], **more: Any) -> Callable[[Any, float], torch.optim.Optimizer]:
    return lambda params, lr: kind(params, lr=lr, **more)


def _hundredth(params: Any, lr: float) -> torch.optim.Optimizer:
    """Adam at a hundredth of the learning rate that it is asked for."""
    return torch.optim.Adam(params, lr=0.01 * lr)


_SGD, _MOMENTUM = torch.optim.SGD, {"momentum": 0.9}
_MADE: Mapping[str, tuple[Callable[[], Task], int, int, tuple[float, float]]] = {
    "adamw-cnn-batch-norm": (partial(_batch_norm, "adamw"), 64, 150, (0.0123, 0.037)),
    "adam-normalised-outputs": (_normalised_outputs, 64, 200, (0.0123, 0.111)),
    "adamw-transformer": (_transformer, 64, 300, (0.037, 0.037)),
    "momentum-cosine-loss": (_cosine, 32, 300, (0.111, 1)),
    "sgd-squashed-loss": (_squashed, 32, 300, (1, 1)),
    "adam-focal-loss": (_focal, 64, 200, (0.037, 0.037)),
    "adam-ten-parameters": (_ten_parameters, 32, 400, (0.111, 0.333)),
    "nesterov-huge-targets": (
        partial(_huge_targets, _with(_SGD, nesterov=True, **_MOMENTUM)),
        32,
        300,
        (1.69e-05, 1.69e-05),
    ),
    "adam-huge-targets": (partial(_huge_targets, _with(torch.optim.Adam)), 32, 300, (0.333, 9)),
    "momentum-sums": (_sums, 32, 200, (0.0123, 0.0123)),
    "nesterov-digits": (partial(_of_digits, _with(_SGD, nesterov=True, **_MOMENTUM)), 32, 300, (0.111, 0.333)),
    "momentum-clipped": (partial(_of_digits, _with(_SGD, **_MOMENTUM), before_update=_clip), 32, 300, (0.111, 0.333)),
    "rmsprop-digits": (partial(_of_digits, _with(torch.optim.RMSprop)), 32, 300, (0.0123, 0.037)),
    "adagrad-digits": (partial(_of_digits, _with(torch.optim.Adagrad)), 32, 300, (0.111, 0.111)),
    "lion-digits": (partial(_of_digits, Lion), 32, 300, (0.00412, 0.00412)),
    "radam-digits": (partial(_of_digits, _with(torch.optim.RAdam)), 32, 300, (0.111, 0.333)),
    "adam-hundredths": (partial(_of_digits, _hundredth), 32, 300, (3, 3)),
    "sgd-words": (_words, 32, 400, (0.333, 3)),
    "momentum-cnn-batch-norm": (partial(_batch_norm, "sgd"), 64, 150, (0.037, 0.037)),
    "momentum-cnn-stripes": (_stripes, 16, 500, (0.037, 0.037)),
    "adamw-nearly-solved": (_nearly_solved, 32, 300, (0.0123, 0.111)),
    "adamw-contrastive": (_contrastive, 64, 200, (0.0123, 0.333)),
}
"""What makes each task, its batch size and number of steps, and its good learning rates as the grid found them."""

SMALL_TRAININGS = tuple(
    SmallTraining(name=name, make=make, batch_size=size, steps=steps, good=good)
    for name, (make, size, steps, good) in _MADE.items()
)
