"""Gradient scalers and wrapped optimizers of a training, as far as a monitor must know of them."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["loss_scale", "stepping_scaler", "unwrapped"]

_STEP = torch.amp.GradScaler.step.__code__
_DEEPEST = 24
"""Calls from a scaler's `step` down to the optimizer's hooks, at most; schedulers and profilers wrap some."""


def loss_scale(scaler: Any) -> float:
    """Factor that the gradients of now have; 1 without a scaler, or with one that is not enabled."""
    return 1.0 if scaler is None else float(scaler.get_scale())


def stepping_scaler() -> Any:
    """The enabled `GradScaler` whose `step` is under way, found among the callers; `None`: there is none.

    Local variables are asked of the scaler's own call only: to ask those of a training's would keep its batch, its loss
    and its model alive until its function ends.
    """
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    for _ in range(_DEEPEST):
        if frame.f_code is _STEP:
            scaler = frame.f_locals["self"]
            return scaler if scaler.is_enabled() else None
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer inside those of Lightning and Accelerate, which hand their steps on to it."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer
