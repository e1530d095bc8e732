"""The shipped task: 1,797 hand-written digits of 8 x 8 pixels, ten classes."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..errors import TaskError
from .models import Norm, cnn, mlp
from .supervised import OptimizerName, SupervisedTask, classification_metrics

__all__ = ["digits"]

_SIDE = 8
_LARGEST_PIXEL = 16.0
_VAL = _TEST = 180


def digits(
    *,
    optimizer: OptimizerName = "sgd",
    model: Literal["mlp", "cnn"] = "mlp",
    hidden: int = 128,
    norm: Norm = "none",
) -> SupervisedTask:
    """Hand-written digits: 1,437 to train, 180 to validate, 180 to test, in a fixed split.

    Args:
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        model: `mlp` (64 pixels, `hidden` ReLU units, 10 classes) or `cnn` (two blocks of 16 and 32 channels).
        hidden: units of the perceptron's hidden layer.
        norm: normalisation in the CNN.

    Returns:
        A task with the metrics `val_loss`, `val_accuracy`, `test_loss` and `test_accuracy`.
    """
    if norm != "none" and model != "cnn":
        raise TaskError(f"norm={norm} needs model=cnn; model={model} has no normalisation")
    with (files("batchscope.tasks") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        pixels = torch.from_numpy(arrays["x"].astype(np.float32)) / _LARGEST_PIXEL
        labels = torch.from_numpy(arrays["y"].astype(np.int64))
    inputs = pixels.unsqueeze(1) if model == "cnn" else pixels.flatten(1)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    cuts = {"train": order[_VAL + _TEST :], "val": order[:_VAL], "test": order[_VAL : _VAL + _TEST]}
    make_model: partial[nn.Module] = (
        partial(cnn, (1, _SIDE, _SIDE), 10, norm=norm)
        if model == "cnn"
        else partial(mlp, _SIDE * _SIDE, 10, hidden=hidden, depth=1)
    )
    return SupervisedTask(
        make_model=make_model,
        objective=F.cross_entropy,
        metrics=classification_metrics,
        optimizer_name=optimizer,
        parts={part: (inputs[chosen], labels[chosen]) for part, chosen in cuts.items()},
    )
