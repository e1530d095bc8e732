"""Members of a task: declared once, what their values may be, and what they mean where they may be several things.

`MEMBERS` is the one list: the template of `batchscope init`, `docs/tasks.md`, the arguments of `batchscope.task`, and
what is said of a member that is missing or misspelt are held to it by their tests.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import TaskError
from ..hardware.device import Device
from .settings import near_miss

__all__ = [
    "MEMBERS",
    "PRECISIONS",
    "Member",
    "autocast",
    "checked_decay",
    "checked_factor",
    "checked_precision",
    "checked_weight",
    "loss_in",
    "place_of_loss",
    "wants_model",
]


@dataclass(frozen=True, kw_only=True)
class Member:
    """Member of a task.

    Attributes:
        name: of the method or attribute.
        signature: how it is called and what it returns, without `self`; of an attribute, its type.
        meaning: one sentence.
        required: whether there is no task without it.
        argument: of `batchscope.task`, where it has another name.
    """

    name: str
    signature: str
    meaning: str
    required: bool = False
    argument: str = ""

    @property
    def called(self) -> bool:
        """Whether it is a method, not a value."""
        return self.signature.startswith("(")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of what it is called with, without `self`."""
        inside = self.signature.removeprefix("(").partition(")")[0]
        return tuple(filter(None, inside.split(", "))) if self.called else ()

    @property
    def line(self) -> str:
        """How a class defines it, in one line."""
        if not self.called:
            return f"{self.name}: {self.signature}"
        arguments = self.signature.removeprefix("(")
        return f"def {self.name}(self{'' if arguments.startswith(')') else ', '}{arguments}: ..."


MEMBERS = (
    Member(name="model", signature="() -> nn.Module", required=True, meaning="A fresh model."),
    Member(
        name="train_data",
        signature="() -> Dataset",
        required=True,
        argument="train",
        meaning="The training data, one example at a time; batches are batchscope's to make.",
    ),
    Member(
        name="loss",
        signature="(model, batch) -> Tensor",
        required=True,
        meaning="The mean loss over the examples (or the terms, see loss_weight) of a batch.",
    ),
    Member(
        name="optimizer",
        signature="(params, lr) -> Optimizer",
        required=True,
        meaning="The optimizer at a learning rate, without a scheduler; `(model, lr)` is handed the model.",
    ),
    Member(name="evaluate", signature="(model) -> dict[str, float]", meaning="The metrics."),
    Member(name="batch_size", signature="(batch) -> int", meaning="The number of examples in a batch."),
    Member(
        name="loss_weight",
        signature="(batch) -> float",
        meaning="The number of terms in the mean that loss returns, such as tokens.",
    ),
    Member(
        name="before_update",
        signature="(model) -> None",
        meaning="Called once a step when all gradients are there, before the optimizer's step: clipping.",
    ),
    Member(
        name="schedule",
        signature="(progress) -> float",
        meaning="The factor of the learning rate at a share of the run in [0, 1].",
    ),
    Member(name="precision", signature="str", meaning="'float32', 'bfloat16' or 'float16': autocast around the loss."),
    Member(name="ema_decay", signature="float", meaning="Decay of a moving average of the weights, evaluated beside."),
    Member(name="sampler", signature="(seed) -> Iterable[int]", meaning="The order of the examples in an epoch."),
    Member(name="collate", signature="(examples) -> batch", meaning="Makes a batch of a list of examples."),
    Member(name="loader_options", signature="dict", meaning="Arguments of DataLoader, such as num_workers."),
    Member(name="name", signature="str", meaning="What the results of a task made in Python are called."),
)
"""All members of a task, those first without which there is none."""

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
    """Loss in what the task's `loss` returned.

    It is the member `loss` of a dict or an object (a `ModelOutput` of transformers, a named tuple), else the first of a
    tuple or list, else what was returned itself.

    Raises:
        TaskError: a dict lacks it, or the first of a tuple is no scalar.
    """
    place = place_of_loss(returned)
    if place == '["loss"]':
        held = cast(Mapping[str, Any], returned)
        if "loss" not in held:
            raise TaskError(
                f"loss(model, batch) returned a dict with {', '.join(map(str, held)) or 'nothing'}; the scalar to "
                "train on must stand in it as 'loss'"
            )
        return held["loss"]
    if place == ".loss":
        return returned.loss
    if place == "[0]" and returned:
        first: Any = cast("tuple[Any, ...]", returned)[0]
        if not isinstance(first, Tensor) or first.ndim:
            shape = f"of shape {tuple(first.shape)}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
            raise TaskError(
                f"loss(model, batch) returned a {type(returned).__name__} whose first member is {shape}; the scalar to "
                "train on must come first: return loss, or (loss, outputs)"
            )
        return first
    return cast(Tensor, returned)


def place_of_loss(returned: Any) -> str:
    """Where the loss stands in what the task's `loss` returned, as Python; empty: it was returned itself.

    >>> place_of_loss({"loss": 1.0}), place_of_loss((1.0, None)), place_of_loss(1.0)
    ('["loss"]', '[0]', '')
    """
    if isinstance(returned, Tensor):
        return ""
    if isinstance(returned, Mapping):
        return '["loss"]'
    if hasattr(returned, "loss"):
        return ".loss"
    return "[0]" if isinstance(returned, tuple | list) else ""


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
        hint = near_miss(str(value).removeprefix("torch."), list(PRECISIONS))
        raise TaskError(f"precision is {value!r}; it must be one of {', '.join(map(repr, PRECISIONS))}{hint}")
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
