"""A user's own arrays: images or tables, classification or regression."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import TaskError
from .image_folder import IMAGE_SIDE
from .inputs import read_inputs
from .models import ModelName, Norm
from .network import Init, Network
from .scaling import Scale
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
from .targets import Problem, read_targets

__all__ = ["arrays"]


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
    problem: Problem = "auto",
    size: int = IMAGE_SIDE,
    evaluate_at_most: int = EVALUATED_AT_MOST,
) -> SupervisedTask:
    """Train a model on arrays: of an `.npz` file, of MNIST's files, of a folder of images, of a torchvision data set.

    Integers, booleans, texts and one-hot rows in `y` are classes, in the order of their values, whatever their numbers;
    other `y` are regression on the target standardised by its training part. Tables (two dimensions) are standardised
    by the training part; pixels are divided by their number of levels, which their range in the training part tells
    (255 for bytes). Images are (N, H, W), (N, C, H, W) or (N, H, W, C) with one to four channels, and are flattened for
    `linear` and `mlp`. What was taken for what stands among the notes of every answer.

    Args:
        path: an `.npz` file of `x_train, y_train, x_val, y_val[, x_test, y_test]`, or of arrays with names that mean
            the same (`train_images`, `labels`; a fifth validates where no part does); a folder with MNIST's four IDX
            files, of which the test files are the test part, and a sixth of the others the validation part; a folder of
            images, `CLASS/*.png` (a fifth validates) or `train/CLASS/*.png`, `val/CLASS/*.png` and perhaps
            `test/CLASS/*.png`, likewise `.jpg`, `.webp`, `.bmp`, `.gif`, `.tif` and others that Pillow reads; or
            `torchvision:NAME`, divided like the IDX files.
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
        problem: `auto` as above; `classification` takes whole numbers of any type as classes, `regression` takes
            integers as numbers.
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
    if network.takes_images and len(shape := data.x["train"].shape) not in (3, 4):
        raise TaskError(
            f"model={network.model} needs images, (N, H, W) or (N, C, H, W), x_train has shape {shape}: use mlp"
        )
    scaled = read_inputs(data.x, takes_images=network.takes_images, scale=scale, source=data.source)
    found = read_targets(data.y, problem, data.source, data.labels)
    inputs, targets = ({part: torch.from_numpy(v) for part, v in each.values.items()} for each in (scaled, found))
    outputs = found.classes or targets["train"].shape[1]
    held_out = {part: bounded(inputs[part], targets[part], evaluate_at_most) for part in inputs if part != "train"}
    return SupervisedTask(
        make_model=network.maker(inputs["train"].shape[1:], outputs),
        objective=F.cross_entropy if found.classes else F.mse_loss,
        metrics=classification_metrics if found.classes else regression_metrics,
        optimizer_name=optimizer,
        parts={"train": (inputs["train"], targets["train"]), **held_out},
        momentum=momentum,
        data_notes=(*data.notes, *found.notes, *scaled.notes, *_bounded_in_words(inputs, evaluate_at_most)),
    )


def _bounded_in_words(inputs: Mapping[str, Tensor], most: int) -> list[str]:
    """Which parts are evaluated on some of their examples alone."""
    return [
        f"an evaluation takes {most:,} of the {len(v):,} examples of the {part} part, always the same"
        for part, v in inputs.items()
        if part != "train" and len(v) > most
    ]
