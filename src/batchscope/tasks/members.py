"""Optional members of a task: what they may be, and what they mean where they may be several things."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import TaskError
from ..hardware.device import Device

__all__ = [
    "PRECISIONS",
    "autocast",
    "checked_decay",
    "checked_factor",
    "checked_precision",
    "checked_weight",
    "loss_in",
    "wants_model",
]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Names of what a task may compute its loss in."""


def wants_model(make_optimizer: Callable[..., Any]) -> bool:
    """Whether an `optimizer` takes the model in the place of its parameters, by the name of its first argument.

    >>> wants_model(lambda params, lr: None), wants_model(lambda model, lr: None)
    (False, True)
    """
    try:
        names = list(inspect.signature(make_optimizer).parameters)
    except (TypeError, ValueError):
        return False
    return names[:1] == ["model"]


def loss_in(returned: Any) -> Tensor:
    """Loss in what the task's `loss` returned: itself, the member `loss` of a dict, or the first of a tuple."""
    if isinstance(returned, Mapping):
        held = cast(Mapping[str, Any], returned)
        if "loss" not in held:
            raise TaskError(
                f"loss(model, batch) returned a dict with {', '.join(map(str, held)) or 'nothing'}; the scalar to "
                "train on must stand in it as 'loss'"
            )
        return held["loss"]
    if isinstance(returned, tuple | list) and returned:
        return cast("tuple[Tensor, ...]", returned)[0]
    return cast(Tensor, returned)


def checked_weight(value: Any) -> float:
    """Weight that `loss_weight` gave a batch.

    Raises:
        TaskError: it is not a finite number above zero.
    """
    weight = float(value)
    if not (math.isfinite(weight) and weight > 0.0):
        raise TaskError(
            f"loss_weight(batch) returned {weight:g}; it must be the number of terms in the mean that loss returns for "
            "this batch, such as its tokens that are not padding: a finite number above 0"
        )
    return weight


def checked_factor(value: Any, progress: float) -> float:
    """Factor that `schedule` gave.

    Raises:
        TaskError: it is not a finite number of at least zero.
    """
    factor = float(value)
    if not (math.isfinite(factor) and factor >= 0.0):
        raise TaskError(
            f"schedule({progress:.3g}) returned {factor:g}; it must be a factor of the learning rate, a finite number "
            "of at least 0: 1.0 leaves it as it is"
        )
    return factor


def checked_decay(value: Any) -> float | None:
    """Decay of the averaged weights.

    Raises:
        TaskError: it is not between 0 and 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < 1.0:
        raise TaskError(f"ema_decay is {value!r}; it must be a number between 0 and 1, for example 0.999")
    return float(value)


def checked_precision(value: Any, device: Device) -> str:
    """Precision of a task, tried on the device.

    Raises:
        TaskError: it has no such name, or the device cannot compute in it.
    """
    name = "float32" if value is None else value
    if name not in PRECISIONS:
        raise TaskError(f"precision is {value!r}; it must be one of {', '.join(map(repr, PRECISIONS))}")
    if name != "float32":
        try:
            with autocast(name, device):
                one = torch.ones(2, 2, device=device.torch_device)
                made = (one @ one).dtype
        except RuntimeError as error:
            raise _lacking(name, device) from error
        if made != PRECISIONS[name]:
            raise _lacking(name, device)
    return name


def _lacking(name: str, device: Device) -> TaskError:
    return TaskError(
        f"precision is {name!r}, and {device.torch_device} does not compute in it; use 'float32', or another --device"
    )


def autocast(precision: str, device: Device) -> AbstractContextManager[Any]:
    """Context in which torch computes in a precision where that is safe; nothing in float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.torch_device.type, PRECISIONS[precision])
