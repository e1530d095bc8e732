"""The two optimizers that are compared, each with torch's defaults apart from the learning rate."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam

__all__ = ["make_adam", "make_sgd"]


def make_sgd(params: Iterable[nn.Parameter], lr: float) -> SGD:
    """SGD without momentum."""
    return SGD(params, lr=lr)


def make_adam(params: Iterable[nn.Parameter], lr: float) -> Adam:
    """Adam with torch's betas."""
    return Adam(params, lr=lr)
