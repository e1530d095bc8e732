"""A user's own arrays: images or tables, classification or regression."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...errors import TaskError
from .image_folder import IMAGE_SIDE
from .models import ModelName, Norm
from .network import Init, Network
from .scaling import Scale, standard_columns, standard_pixels
from .sources import read_source
from .supervised import (
    EVALUATED_AT_MOST,
    MOMENTUM,
    OptimizerName,
    SupervisedTask,
    bounded,
    check_optimizer,
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
    momentum: float = MOMENTUM,
    hidden: int = 128,
    depth: int = 2,
    norm: Norm = "none",
    dropout: float = 0.0,
    init: Init = "default",
    scale: Scale = "unit",
    size: int = IMAGE_SIDE,
    evaluate_at_most: int = EVALUATED_AT_MOST,
) -> SupervisedTask:
    """Train a model on arrays: of an `.npz` file, of MNIST's files, of a folder of images, of a torchvision data set.

    Integer `y` is classification, any other regression on the target standardised by its training part. `uint8` inputs
    are divided by 255; tables (two dimensions) are standardised by the training part; images are (N, H, W),
    (N, C, H, W) or (N, H, W, C) with one to four channels, and are flattened for `linear` and `mlp`.

    Args:
        path: an `.npz` file of `x_train, y_train, x_val, y_val[, x_test, y_test]`; a folder with MNIST's four IDX
            files, of which the test files are the test part, and a sixth of the others the validation part; a folder of
            images, `CLASS/*.png` (a fifth validates) or `train/CLASS/*.png`, `val/CLASS/*.png` and perhaps
            `test/CLASS/*.png`, likewise `.jpg` and `.jpeg`; or `torchvision:NAME`, divided like the IDX files.
        model: `linear`, `mlp` or, for images, `cnn` or `vgg` (five blocks of 4 to 64 channels and two hidden layers of
            256 units, after Chang and Pathak).
        optimizer: `sgd` or `adamw`.
        momentum: of `sgd`; 0 is plain SGD.
        hidden: units in each hidden layer of the perceptron.
        depth: its hidden layers.
        norm: normalisation in `cnn` and `vgg`.
        dropout: share of the values that is set to 0 after each pooling and each hidden layer.
        init: `default` is PyTorch's; `xavier` has Xavier normal weights and biases of 0.
        scale: `unit` as above; `standard` takes from images, and from all other inputs but a table that is standardised
            anyway, the mean of all their values in the training part, and divides by their standard deviation.
        size: height and width to which the images of a folder are brought; nothing else is resized.
        evaluate_at_most: examples of the validation part, and of the test part, in an evaluation; always the same ones.

    Returns:
        A task with the metrics `val_loss` and `val_accuracy` (regression: `val_r2`), and the same for `test` where
        there is a test part.

    Raises:
        TaskError: the data cannot be read, lack a part, or hold what cannot be trained on; a number is out of its
            range, or a setting is given that the model, the optimizer or the data have no use for.
    """
    check_optimizer(optimizer, momentum)
    network = Network(model=model, hidden=hidden, depth=depth, norm=norm, dropout=dropout, init=init)
    for name, value in {"size": size, "evaluate_at_most": evaluate_at_most}.items():
        if value < 1:
            raise TaskError(f"{name}={value} must be at least 1")
    data = read_source(Path(path), size)
    inputs = _inputs(data.x, network, scale)
    targets = {part: torch.from_numpy(y) for part, y in data.y.items()} if data.classes else standard_columns(data.y)
    outputs = data.classes or targets["train"].shape[1]
    held_out = {part: bounded(inputs[part], targets[part], evaluate_at_most) for part in inputs if part != "train"}
    return SupervisedTask(
        make_model=network.maker(inputs["train"].shape[1:], outputs),
        objective=F.cross_entropy if data.classes else F.mse_loss,
        metrics=classification_metrics if data.classes else regression_metrics,
        optimizer_name=optimizer,
        parts={"train": (inputs["train"], targets["train"]), **held_out},
        momentum=momentum,
    )


def _inputs(x: Mapping[str, NDArray[np.generic]], network: Network, scale: Scale) -> dict[str, Tensor]:
    train = x["train"]
    if network.takes_images and train.ndim not in (3, 4):
        raise TaskError(
            f"model={network.model} needs images, (N, H, W) or (N, C, H, W), x_train has shape {train.shape}: use mlp"
        )
    if train.dtype != np.uint8 and train.ndim == 2:
        return standard_columns(x)
    if train.dtype == np.uint8:
        scaled = {part: torch.from_numpy(v).float().div_(_LARGEST_BYTE) for part, v in x.items()}
    else:
        scaled = {part: torch.from_numpy(v.astype(np.float32)) for part, v in x.items()}
    if scale == "standard":
        scaled = standard_pixels(scaled)
    return {part: _channels_first(v) if network.takes_images else v.flatten(1) for part, v in scaled.items()}


def _channels_first(images: Tensor) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    last_is_channels = images.shape[3] <= _MOST_CHANNELS < images.shape[1]
    return images.permute(0, 3, 1, 2).contiguous() if last_is_channels else images
