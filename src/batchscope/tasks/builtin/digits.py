"""Digits, the shipped task: 1,797 hand-written digits of 8 x 8 pixels, ten classes."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from torch.nn import functional as F

from .models import ModelName, Norm
from .network import Init, Network
from .scaling import Scale, standard_pixels
from .supervised import MOMENTUM, OptimizerName, SupervisedTask, check_optimizer, classification_metrics

__all__ = ["digits"]

_LARGEST_PIXEL = 16.0
_VAL = _TEST = 180
_CLASSES = 10


def digits(
    *,
    optimizer: OptimizerName = "sgd",
    momentum: float = MOMENTUM,
    model: ModelName = "mlp",
    hidden: int = 128,
    depth: int = 1,
    norm: Norm = "none",
    dropout: float = 0.0,
    init: Init = "default",
    scale: Scale = "unit",
) -> SupervisedTask:
    """Hand-written digits: 1,437 to train, 180 to validate, 180 to test, in a fixed split.

    Args:
        optimizer: `sgd` or `adamw`.
        momentum: of `sgd`; 0 is plain SGD.
        model: `mlp` (64 pixels, `hidden` ReLU units, 10 classes), `cnn` (two blocks of 16 and 32 channels), `vgg` (five
            blocks of 4 to 64 channels and two hidden layers of 256 units, after Chang and Pathak) or `linear`.
        hidden: units in each hidden layer of the perceptron.
        depth: its hidden layers; with two of 1024 it is Shen's network, on 64 pixels.
        norm: normalisation in `cnn` and `vgg`.
        dropout: share of the values that is set to 0 after each pooling and each hidden layer.
        init: `default` is PyTorch's; `xavier` has Xavier normal weights and biases of 0.
        scale: `unit` is pixels from 0 to 1; `standard` then takes off their mean and divides by their standard
            deviation, those over all pixels of the training part.

    Returns:
        A task with the metrics `val_loss`, `val_accuracy`, `test_loss` and `test_accuracy`.

    Raises:
        TaskError: a number is out of its range, or a setting is given that the model or the optimizer has no use for.
    """
    check_optimizer(optimizer, momentum)
    network = Network(model=model, hidden=hidden, depth=depth, norm=norm, dropout=dropout, init=init)
    with (
        (files("batchscope.tasks.builtin") / "digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        pixels = torch.from_numpy(arrays["x"].astype(np.float32)) / _LARGEST_PIXEL
        labels = torch.from_numpy(arrays["y"].astype(np.int64))
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    cuts = {"train": order[_VAL + _TEST :], "val": order[:_VAL], "test": order[_VAL : _VAL + _TEST]}
    images = pixels.unsqueeze(1) if network.takes_images else pixels.flatten(1)
    inputs = {part: images[chosen] for part, chosen in cuts.items()}
    if scale == "standard":
        inputs = standard_pixels(inputs)
    return SupervisedTask(
        make_model=network.maker(images.shape[1:], _CLASSES),
        objective=F.cross_entropy,
        metrics=classification_metrics,
        optimizer_name=optimizer,
        parts={part: (inputs[part], labels[chosen]) for part, chosen in cuts.items()},
        momentum=momentum,
    )
