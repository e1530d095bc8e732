"""A user's own arrays: images or tables, classification or regression."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TaskError
from .array_file import read_arrays
from .models import ModelName, Norm, cnn, linear, mlp
from .supervised import (
    EVALUATED_AT_MOST,
    OptimizerName,
    SupervisedTask,
    bounded,
    classification_metrics,
    regression_metrics,
)

__all__ = ["arrays"]

_LARGEST_BYTE = 255.0
_MOST_CHANNELS = 4


def arrays(
    *,
    path: Path,
    model: ModelName = "mlp",
    optimizer: OptimizerName = "adamw",
    hidden: int = 128,
    depth: int = 2,
    norm: Norm = "none",
    evaluate_at_most: int = EVALUATED_AT_MOST,
) -> SupervisedTask:
    """Train a model on the arrays `x_train, y_train, x_val, y_val[, x_test, y_test]` of an `.npz` file.

    Integer `y` is classification, any other regression on the target standardised by its training part. `uint8` inputs
    are divided by 255; tables (two dimensions) are standardised by the training part; images are (N, H, W),
    (N, C, H, W) or (N, H, W, C) with one to four channels, and are flattened for `linear` and `mlp`.

    Args:
        path: the `.npz` file.
        model: `linear`, `mlp` or, for images, `cnn`.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        hidden: units in each hidden layer of the perceptron.
        depth: its hidden layers.
        norm: normalisation in the CNN.
        evaluate_at_most: examples of the validation part, and of the test part, in an evaluation; always the same ones.

    Returns:
        A task with the metrics `val_loss` and `val_accuracy` (regression: `val_r2`), and the same for `test` where the
        file has it.

    Raises:
        TaskError: the file cannot be read, lacks an array, or holds what cannot be trained on.
    """
    if norm != "none" and model != "cnn":
        raise TaskError(f"norm={norm} needs model=cnn; model={model} has no normalisation")
    for name, value in {"hidden": hidden, "depth": depth, "evaluate_at_most": evaluate_at_most}.items():
        if value < 1:
            raise TaskError(f"{name}={value} must be at least 1; a network without hidden layers is model=linear")
    data = read_arrays(Path(path))
    inputs = _inputs(data.x, flat=model != "cnn")
    targets = {part: torch.from_numpy(y) for part, y in data.y.items()} if data.classes else _standardised(data.y)
    outputs = data.classes or targets["train"].shape[1]
    held_out = {part: bounded(inputs[part], targets[part], evaluate_at_most) for part in inputs if part != "train"}
    return SupervisedTask(
        make_model=_model_maker(model, inputs["train"].shape[1:], outputs, hidden, depth, norm),
        objective=F.cross_entropy if data.classes else F.mse_loss,
        metrics=classification_metrics if data.classes else regression_metrics,
        optimizer_name=optimizer,
        parts={"train": (inputs["train"], targets["train"]), **held_out},
    )


def _model_maker(
    model: ModelName, shape: torch.Size, outputs: int, hidden: int, depth: int, norm: Norm
) -> partial[nn.Module]:
    if model == "linear":
        return partial(linear, shape[0], outputs)
    if model == "mlp":
        return partial(mlp, shape[0], outputs, hidden=hidden, depth=depth)
    return partial(cnn, (shape[0], shape[1], shape[2]), outputs, norm=norm)


def _inputs(x: Mapping[str, NDArray[np.generic]], *, flat: bool) -> dict[str, Tensor]:
    train = x["train"]
    if not flat and train.ndim not in (3, 4):
        raise TaskError(f"model=cnn needs images, (N, H, W) or (N, C, H, W), x_train has shape {train.shape}: use mlp")
    if train.dtype == np.uint8:
        scaled = {part: torch.from_numpy(v).float() / _LARGEST_BYTE for part, v in x.items()}
    elif train.ndim == 2:
        scaled = _standardised(x)
    else:
        scaled = {part: torch.from_numpy(v.astype(np.float32)) for part, v in x.items()}
    return {part: v.flatten(1) if flat else _channels_first(v) for part, v in scaled.items()}


def _channels_first(images: Tensor) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    last_is_channels = images.shape[3] <= _MOST_CHANNELS < images.shape[1]
    return images.permute(0, 3, 1, 2).contiguous() if last_is_channels else images


def _standardised(values: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    """Minus the mean, divided by the deviation, of the training part; a constant column becomes 0."""
    exact = {part: torch.from_numpy(v.astype(np.float64)) for part, v in values.items()}
    mean, deviation = exact["train"].mean(0), exact["train"].std(0, correction=0)
    deviation[deviation == 0] = 1.0
    return {part: ((v - mean) / deviation).float() for part, v in exact.items()}
