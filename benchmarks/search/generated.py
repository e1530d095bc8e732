"""Factories of the benchmark's own tasks: generated data, and parts of the shared sets made harder."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.builtin.models import Norm, cnn, mlp
from batchscope.tasks.builtin.supervised import OptimizerName, SupervisedTask, classification_metrics

__all__ = ["fashion", "random_labels", "residual_digits", "teacher_student"]

FASHION = Path(__file__).resolve().parents[3] / "shared" / "data" / "fashion_mnist" / "fashion_mnist.npz"
_SIDE, _LARGEST_BYTE = 28, 255.0
_VAL = 1000


def teacher_student(
    *, optimizer: OptimizerName = "sgd", examples: int = 8192, inputs: int = 16, noise: float = 0.3
) -> SupervisedTask:
    """A perceptron (two layers of 64) learns the output of a random one (one layer of 8 tanh units) plus noise.

    Args:
        optimizer: `sgd` or `adamw`.
        examples: to train on; 1,000 more validate, without noise.
        inputs: dimensions of the standard normal inputs.
        noise: standard deviation of what is added to the standardised output of the training part.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(examples + _VAL, inputs, generator=generator)
    first = torch.randn(inputs, 8, generator=generator) / inputs**0.5 * 1.5
    y = torch.tanh(x @ first) @ torch.randn(8, 1, generator=generator)
    y = (y - y.mean()) / y.std()
    seen = y[:examples] + noise * torch.randn(examples, 1, generator=generator)
    return SupervisedTask(
        make_model=partial(mlp, inputs, 1, hidden=64, depth=2),
        objective=F.mse_loss,
        metrics=lambda outputs, targets: {"loss": F.mse_loss(outputs, targets)},
        optimizer_name=optimizer,
        parts={"train": (x[:examples], seen), "val": (x[examples:], y[examples:])},
    )


def random_labels(
    *, optimizer: OptimizerName = "sgd", examples: int = 1024, inputs: int = 32, classes: int = 4, hidden: int = 512
) -> SupervisedTask:
    """A wide perceptron learns labels that have nothing to do with the inputs; `fit_loss` is the loss on all of them.

    Args:
        optimizer: `sgd` or `adamw`.
        examples: to learn by heart.
        inputs: dimensions of the standard normal inputs.
        classes: how many labels.
        hidden: units of the one hidden layer.
    """
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(examples, inputs, generator=generator)
    y = torch.randint(classes, (examples,), generator=generator)
    return SupervisedTask(
        make_model=partial(mlp, inputs, classes, hidden=hidden, depth=1),
        objective=F.cross_entropy,
        metrics=classification_metrics,
        optimizer_name=optimizer,
        parts={"train": (x, y), "fit": (x, y)},
    )


def fashion(
    *,
    path: Path = FASHION,
    model: Literal["mlp", "cnn"] = "mlp",
    norm: Norm = "none",
    optimizer: OptimizerName = "sgd",
    side: int = 28,
    examples: int = 25000,
    wrong_labels: float = 0.0,
) -> SupervisedTask:
    """The first images of Fashion-MNIST, perhaps at a lower resolution, perhaps with wrong labels to train on.

    Args:
        path: the `.npz` file.
        model: `mlp` (one layer of 128) or `cnn`.
        norm: normalisation in the CNN.
        optimizer: `sgd` or `adamw`.
        side: 28, or 14 or 7 for means over 2 x 2 or 4 x 4 pixels.
        examples: the first so many train; the first 1,000 of the validation part validate.
        wrong_labels: share of the training labels that are drawn at random from the ten.
    """
    with np.load(path, allow_pickle=False) as file:
        data = {part: (file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "val")}
    size, flat = side, model == "mlp"
    train = _images(*(values[:examples] for values in data["train"]), side=size, flat=flat)
    val = _images(*(values[:_VAL] for values in data["val"]), side=size, flat=flat)
    if wrong_labels:
        generator = torch.Generator().manual_seed(3)
        wrong = torch.rand(len(train[1]), generator=generator) < wrong_labels
        drawn = torch.randint(10, train[1].shape, generator=generator)
        train = (train[0], torch.where(wrong, drawn, train[1]))
    return SupervisedTask(
        make_model=partial(mlp, size**2, 10, hidden=128, depth=1)
        if flat
        else partial(cnn, (1, size, size), 10, norm=norm),
        objective=F.cross_entropy,
        metrics=classification_metrics,
        optimizer_name=optimizer,
        parts={"train": train, "val": val},
    )


def _images(x: np.ndarray, y: np.ndarray, *, side: int, flat: bool) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(x).float().unsqueeze(1) / _LARGEST_BYTE
    images = F.avg_pool2d(images, _SIDE // side) if side < _SIDE else images
    return images.flatten(1) if flat else images, torch.from_numpy(y.astype(np.int64))


def residual_digits(*, optimizer: OptimizerName = "adamw", channels: int = 8, blocks: int = 2) -> SupervisedTask:
    """The 8 x 8 digits and a residual net: a convolution, blocks of two with group norm, maxima, an affine map.

    Args:
        optimizer: `sgd` or `adamw`.
        channels: of every convolution.
        blocks: residual blocks.
    """
    task = digits(model="cnn", optimizer=optimizer)
    parts = {part: values for part, values in task.parts.items() if part != "test"}
    return dataclasses.replace(task, make_model=partial(_residual_net, channels, blocks), parts=parts)


def _residual_net(channels: int, blocks: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        *(_Residual(channels) for _ in range(blocks)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(channels * 16, 10),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.GroupNorm(2, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(2, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)
