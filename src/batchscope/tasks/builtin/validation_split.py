"""Validation split of data that come without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import TaskError
from ...wording import plural

__all__ = ["FIFTH", "SIXTH", "split_in_words", "split_off"]

FIFTH = 0.2
"""Of data that come without any other part."""

SIXTH = 1 / 6
"""Of the training part of MNIST and its like: 10,000 of 60,000 images, as many as their test part has."""


def split_off(
    x: NDArray[np.generic], y: NDArray[np.generic], share: float, source: str
) -> dict[str, NDArray[np.generic]]:
    """Arrays `x_train, y_train, x_val, y_val`: validation is the end of one fixed random order, at least one example.

    Args:
        x: inputs, examples first.
        y: their targets.
        share: of the examples that validate.
        source: what a message calls the data.

    Raises:
        TaskError: there are not as many targets as inputs.
    """
    if len(x) != len(y):
        raise TaskError(f"{source} has {len(x)} training examples and {len(y)} labels; they must be equally many")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).numpy()
    cut = len(x) - max(1, round(len(x) * share))
    train, val = order[:cut], order[cut:]
    return {"x_train": x[train], "y_train": y[train], "x_val": x[val], "y_val": y[val]}


def split_in_words(parts: Mapping[str, NDArray[np.generic]]) -> str:
    """How many of the training examples validate, of arrays that `split_off` made."""
    held, rest = len(parts["x_val"]), len(parts["x_train"])
    return f"{held:,} of {plural(held + rest, 'training example')}, drawn at random, validate"
