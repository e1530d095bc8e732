"""Inputs and targets brought to a common scale, by the training part alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Scale", "standard_columns", "standard_pixels"]

Scale = Literal["unit", "standard"]


def standard_columns(values: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    """Columns minus mean over standard deviation, both of the training part; a constant column becomes 0."""
    exact = {part: torch.from_numpy(v.astype(np.float64)) for part, v in values.items()}
    mean, sd = exact["train"].mean(0), exact["train"].std(0, correction=0)
    sd[sd == 0] = 1.0
    return {part: ((v - mean) / sd).float() for part, v in exact.items()}


def standard_pixels(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pixels minus mean over standard deviation, in place; one of each, over all pixels of the training part.

    For MNIST they are 0.1307 and 0.3081, with which Shen (2018) scaled. Images that are all alike become 0.

    Example:
        >>> standard_pixels({"train": torch.tensor([[0.0, 2.0]]), "val": torch.tensor([[3.0, 1.0]])})
        {'train': tensor([[-1.,  1.]]), 'val': tensor([[2., 0.]])}
    """
    mean, sd = float(parts["train"].mean()), float(parts["train"].std(correction=0)) or 1.0
    return {part: values.sub_(mean).div_(sd) for part, values in parts.items()}
